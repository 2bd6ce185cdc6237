// Keeps the panels, the numbers and the table at the latest sample, on the page and in the notebook. All texts and the
// look of a panel come from Python.

const SHORTEST_S = 30, LONGEST_S = 120, KEPT = 600;
const MOST_S = 1.5; // between two samples that a line joins: a recorded naive API has one a second

export async function mount(root, Bokeh, panels) {
  const documents = [];
  for (const [name, item] of Object.entries(panels)) {
    const views = await Bokeh.embed.embed_item(item, root.querySelector(`[data-panel="${name}"] > div`));
    documents.push([...views][0].model.document);
  }
  const all = selector => root.querySelectorAll(selector);
  const each = (name, act) => documents.map(one => one.get_model_by_name(name)).filter(Boolean).forEach(act);
  const columns = (source, rows) =>
    Object.fromEntries(Object.keys(source.data).map(name => [name, rows.map(row => row[name] ?? NaN)]));
  const kept = { naive: [], queue: [] };
  const gapped = rows => rows.flatMap((row, number) =>
    number && row.at_s - rows[number - 1].at_s > MOST_S ? [{ at_s: rows[number - 1].at_s }, row] : [row]);
  const isDrawn = ({ data_source, glyph }) => [...(data_source.data[glyph.y?.field] ?? [])].some(y => !Number.isNaN(y));
  const fill = (name, rows) => {
    each(name, source => { source.data = columns(source, rows); });
    each("legend", legend => {  // a name without a line is hidden
      for (const item of legend.items) item.visible = item.renderers.some(isDrawn);
    });
  };
  const draw = track => {
    fill(track, gapped(kept[track]));
    if (track === "queue") fill("clients", gapped(kept.queue.filter(row => row.in_time != null)));
  };

  function showNow(sample) {
    for (const [name, text] of Object.entries(sample.numbers))
      all(`[data-number="${name}"]`).forEach(element => { element.textContent = text; });
    for (const [name, text] of Object.entries(sample.labels))
      all(`[data-panel="${name}"]`).forEach(element => element.setAttribute("aria-label", text));
    root.dataset.track = sample.track;
  }

  let latest_s = 0, empty_s = 0;
  function showTime(samples) {
    latest_s = Math.max(latest_s, ...samples.map(sample => sample.at_s));
    const end = Math.max(SHORTEST_S, latest_s + 2, 1.1 * empty_s);
    each("time", range => range.setv({ start: Math.max(0, end - LONGEST_S), end }));
  }

  let voteShown = "";
  function showVote(vote) {
    const place = root.querySelector("[data-vote-place]"), text = JSON.stringify(vote ?? null);
    if (text === voteShown) return;
    voteShown = text;
    place.hidden = !vote;
    const isOpened = vote?.open && !place.open;
    place.open = Boolean(vote?.open);
    if (isOpened) place.querySelector("input")?.focus();
    if (!vote) return;
    place.querySelector("[data-question]").textContent = vote.question;
    place.querySelector("[data-advice]").textContent = vote.note;
    place.querySelector('[role="img"]').setAttribute("aria-label", vote.label);
    for (const button of place.querySelectorAll("[data-vote]")) button.disabled = !vote.steps.includes(button.dataset.vote);
    for (const answer of place.querySelectorAll("[data-answer]")) showAnswer(answer, vote.rows[answer.dataset.answer]);
  }
  function showAnswer(answer, row) {
    answer.hidden = !row;
    for (const [name, place] of [["letter", "[data-letter]"], ["text", "[data-text]"]])
      answer.querySelectorAll(place).forEach(one => { one.textContent = row?.[name] ?? ""; });
    for (const name of ["first", "second"]) {
      answer.querySelector(`[data-hands="${name}"]`).textContent = row?.[name]?.hands ?? "";
      answer.querySelector(`i.${name}`).style.setProperty("--share", row?.[name]?.share ?? 0);
    }
  }

  const handlers = {
    sample(sample) {
      const rows = kept[sample.track];
      while (rows.at(-1)?.at_s > sample.after_s) rows.pop();
      if (rows.push(sample) > KEPT) rows.shift();
      draw(sample.track);
      showTime([sample]);
      showNow(sample);
    },
    mark(mark) {
      each("marks", source => source.stream(columns(source, [mark]), KEPT));
    },
    state(state) {
      showVote(state.vote);
      for (const element of all("[data-state]")) element.textContent = state[element.dataset.state] ?? "";
      empty_s = state.empty_s ?? 0;
      const line = state.peak == null ? [] : [0, 1e6].map(at_s => ({ at_s, queue_depth: state.peak }));
      fill("peak", line);
      fill("empty", empty_s ? [{ at_s: empty_s }] : []);
      showTime([]);
    },
    snapshot({ samples, marks, state, now }) {
      latest_s = 0;
      for (const track in kept) {
        kept[track] = samples.filter(sample => sample.track === track);
        draw(track);
      }
      each("marks", source => { source.data = columns(source, marks); });
      handlers.state(state);
      showTime(samples);
      showNow(now);
    },
  };
  return ({ kind, data }) => handlers[kind]?.(data);
}
