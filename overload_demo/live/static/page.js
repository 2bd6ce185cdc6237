// On the page: messages come as server-sent events, and the controls, if there are any, are sent with the token that
// stands behind the # of the address, where no server and no log sees it.
import { mount } from "./live.js";

const SILENT_MS = 3000;
const root = document.querySelector("main");
const say = text => { document.querySelector("[data-note]").textContent = text; };
const tell = await mount(root, globalThis.Bokeh, await (await fetch("panels.json")).json());

let events, heard_ms = Date.now();
function listen() {
  events = new EventSource("events");
  events.onmessage = event => {
    const message = JSON.parse(event.data);
    if (message.kind === "end") {
      say("What was behind this page has ended.");
      return events.close();
    }
    heard_ms = Date.now();
    tell(message);
    const { controls } = message.data.state ?? (message.kind === "state" ? message.data : {});
    if (controls) for (const button of buttons) button.disabled = !controls.includes(button.dataset.do);
  };
}

const token = location.hash.slice(1), buttons = document.querySelectorAll("[data-do]");
if (token) document.querySelector("form")?.removeAttribute("hidden");
const given = name => { const text = document.querySelector(`[name="${name}"]`).value; return text ? Number(text) : null; };
for (const button of buttons)
  button.onclick = async () => {
    say("");
    const answer = await fetch(`control/${button.dataset.do}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Control-Token": token },
      body: JSON.stringify({ peak: given("peak"), empty_s: given("empty_s") }),
    }).catch(error => ({ ok: false, json: async () => ({ detail: String(error) }) }));
    if (!answer.ok) say(await answer.json().then(({ detail }) => detail, () => `refused with ${answer.status}`));
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
