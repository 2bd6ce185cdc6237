// In JupyterLab: BokehJS, loaded once a page, and all messages come from the kernel.

async function bokeh(model) {
  globalThis.overloadDemoBokeh ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([model.get("bokeh_js")], { type: "text/javascript" }));
    script.onload = () => done(globalThis.Bokeh);
    script.onerror = () => failed(new Error("BokehJS did not load"));
    document.head.append(script);
  });
  return globalThis.overloadDemoBokeh;
}

// In a long notebook an output exists before its cell is a part of the page, and Bokeh draws on the page only.
const attached = el => new Promise(done => {
  const observer = new ResizeObserver(() => {
    if (!el.isConnected) return;
    observer.disconnect();
    done();
  });
  observer.observe(el);
});

export default {
  async render({ model, el }) {
    el.classList.add("overload-live");
    el.innerHTML = model.get("markup");
    await attached(el);
    const handle = await mount(el, await bokeh(model), model.get("panels"));
    const pause = el.querySelector("[data-pause]");
    const isPaused = () => pause.getAttribute("aria-pressed") === "true";
    const receive = message => { if (!isPaused()) handle(message); };
    const again = () => model.send({ again: true });
    pause.onclick = () => {
      pause.setAttribute("aria-pressed", String(!isPaused()));
      if (!isPaused()) again();
    };
    model.on("msg:custom", receive);
    again();
    return () => model.off("msg:custom", receive);
  },
};
