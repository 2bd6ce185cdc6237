// On the page: messages arrive as server-sent events. Orders carry the token from behind the # of the address, which
// reaches no server and no log.
import { mount } from "./live.js";

const SILENT_MS = 3000;
const root = document.querySelector("main");
const note = text => { document.querySelector("[data-note]").textContent = text; };
const handle = await mount(root, globalThis.Bokeh, await (await fetch("panels.json")).json());

let events, heard_ms = Date.now();
function listen() {
  events = new EventSource("events");
  events.onmessage = event => {
    const message = JSON.parse(event.data);
    if (message.kind === "end") {
      note("The command behind this page has ended.");
      return events.close();
    }
    heard_ms = Date.now();
    handle(message);
    const { controls } = message.data.state ?? (message.kind === "state" ? message.data : {});
    if (controls) for (const button of buttons) button.disabled = !controls.includes(button.dataset.do);
  };
}

const token = location.hash.slice(1), buttons = document.querySelectorAll("[data-do]");
if (token) for (const element of document.querySelectorAll("[data-instructor]")) element.hidden = false;
const given = name => { const text = document.querySelector(`[name="${name}"]`).value; return text ? Number(text) : null; };
async function send(path, body) {
  note("");
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Control-Token": token },
    body: JSON.stringify(body),
  }).catch(error => ({ ok: false, json: async () => ({ detail: String(error) }) }));
  if (!answer.ok) note(await answer.json().then(({ detail }) => detail, () => `refused with ${answer.status}`));
  return answer.ok;
}
for (const button of buttons)
  button.onclick = () => send(`control/${button.dataset.do}`, { peak: given("peak"), empty_s: given("empty_s") });

// What was typed stays in the fields until it has been counted.
const hands = [...document.querySelectorAll("[data-answer] input")];
for (const button of document.querySelectorAll("[data-vote]"))
  button.onclick = async () => {
    const step = button.dataset.vote, question = document.querySelector('[name="question"]').value;
    const isTaken = await send(`vote/${step}`, { question, counts: hands.map(field => field.value) });
    if (isTaken && ["ask", "first", "second"].includes(step)) for (const field of hands) field.value = "";
    if (isTaken && step === "first") hands[0].focus();
  };

const pause = document.querySelector("[data-pause]"), isPaused = () => pause.getAttribute("aria-pressed") === "true";
pause.onclick = () => {
  pause.setAttribute("aria-pressed", String(!isPaused()));
  isPaused() ? events.close() : listen();
};
setInterval(() => {
  const silent = events.readyState !== EventSource.CLOSED && Date.now() - heard_ms > SILENT_MS;
  document.body.classList.toggle("silent", silent);
}, 500);
listen();
