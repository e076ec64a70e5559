"""How the page looks, and the few lines that run in the browser."""

from __future__ import annotations

# Colours are Gradio's own variables, which follow the reader's choice of light or dark.
STYLE = """
:root, .dark { --font: system-ui, -apple-system, "Segoe UI", sans-serif;
  --font-mono: ui-monospace, monospace; --accent: #1f5f8b; --quiet: #52606d; --line: #d5dbe1;
  --soft: #f4f6f8; --warn: #7a4b00; --warn-soft: #fff6e3; --bad: #93291e; --bad-soft: #fdf0ee; }
.dark { --accent: #7db8e0; --quiet: #aab6c2; --line: #3d4853; --soft: #1d242b; --warn: #ffd78a;
  --warn-soft: #33290f; --bad: #ffb3a8; --bad-soft: #3a1d19; }
.gradio-container { max-width: 62rem !important; margin: 0 auto !important; font-size: 16px;
  font-family: var(--font) !important; }
.gradio-container .main { padding: 1rem 1rem 3rem; }
.gradio-container :is(button, summary, input, a, [tabindex="0"]):focus-visible {
  outline: 3px solid var(--accent) !important; outline-offset: 2px; }
.gradio-container h1 { font-size: 1.5rem; font-weight: 650; margin: .25rem 0 .5rem; }
.gradio-container :is(h1, p, b, summary, td, th, dt, dd, li) { color: var(--body-text-color); }
.gradio-container .html-container { padding: 0; }
#files { border-color: var(--quiet) !important; }
#files button { color: var(--body-text-color); }
.gradio-container .hint { color: var(--quiet); margin: .25rem 0; }
.notice { border-left: 4px solid var(--warn); background: var(--warn-soft); padding: .6rem .9rem;
  border-radius: 4px; }
.notice p { margin: .15rem 0; color: var(--warn); }
.notice .drawn { font-weight: 650; }
#refusal { color: var(--bad); font-weight: 600; margin: .25rem 0; }
#status p { font-weight: 600; margin: 0; }
.results { display: flex; flex-direction: column; gap: .75rem; }
.case { border: 1px solid var(--line); border-radius: 8px; overflow: hidden;
  background: var(--background-fill-primary); }
.case > summary { display: grid; grid-template-columns: auto auto 1fr auto; gap: .8rem;
  align-items: center; padding: .5rem .9rem .5rem .6rem; cursor: pointer; list-style: none; }
.case > summary::-webkit-details-marker { display: none; }
.case > summary::before { content: ""; width: .5rem; height: .5rem; margin: 0 .2rem 0 .4rem;
  border: solid var(--quiet); border-width: 0 2px 2px 0; transform: rotate(-45deg); }
.case[open] > summary::before { transform: rotate(45deg); }
.case[open] > summary { background: var(--soft); border-bottom: 1px solid var(--line); }
.case > summary:focus-visible { outline-offset: -3px !important; }
.case > summary img { width: 44px; height: 44px; object-fit: cover; border-radius: 4px; margin: 0; }
.case .name { overflow-wrap: anywhere; font-weight: 550; }
.case .verdict { display: flex; flex-direction: column; align-items: flex-end; line-height: 1.25; }
.case .verdict span { color: var(--quiet); font-size: .875rem; font-variant-numeric: tabular-nums; }
.case > div { padding: 1rem; }
.case .said { max-width: 34rem; margin-bottom: 1.25rem; }
.case .said p { margin: 0; }
.case .called { font-size: 1.35rem; }
.case .number { display: flex; justify-content: space-between; margin-top: .5rem !important; }
.case .number b { font-variant-numeric: tabular-nums; }
.bar { position: relative; height: .75rem; background: var(--line); border-radius: 6px;
  margin: .3rem 0 1.6rem; }
.bar > span { display: block; height: 100%; background: var(--accent); border-radius: 6px; }
.bar i { position: absolute; top: -.25rem; bottom: -.25rem; width: 2px; margin-left: -1px;
  background: var(--body-text-color); font-style: normal; }
.bar i span { position: absolute; top: 1.3rem; left: 0; transform: translateX(-50%);
  white-space: nowrap; font-size: .8rem; color: var(--quiet); }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr));
  gap: .75rem; }
.panels figure { margin: 0; min-width: 0; max-width: 30rem; }
.panel { position: relative; width: 100%; border-radius: 4px; overflow: hidden;
  background: var(--picture) 0 0 / 100% 100%; }
.panel img { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; }
.panel .colours { opacity: var(--blend); }
.panels figcaption { padding: .3rem 0; font-size: .875rem; color: var(--quiet); }
.controls { border-top: 1px solid var(--line); padding: .9rem 0 0; margin-top: .6rem;
  display: grid; gap: .7rem 2.5rem; grid-template-columns: 1fr 1.6fr; align-items: start; }
.controls p { grid-column: 1 / -1; margin: 0; font-size: .875rem; color: var(--quiet); }
.blend { display: grid; grid-template-columns: 1fr auto; gap: .1rem .75rem; align-items: center; }
.blend span { grid-column: 1 / -1; font-size: .875rem; }
.blend input { width: 100%; height: 1.5rem; accent-color: var(--accent); margin: 0; }
.blend output { font-variant-numeric: tabular-nums; font-size: .875rem; }
.scale { padding: .35rem 1.2rem 0; }
.jet { height: .9rem; border-radius: 3px; box-shadow: 0 0 0 1px var(--line); }
.ticks { position: relative; height: 1.3rem; font-size: .78rem; color: var(--quiet); }
.ticks span { position: absolute; top: .15rem; transform: translateX(-50%); white-space: nowrap; }
.problem { padding: .75rem 1rem; background: var(--bad-soft); border-color: var(--bad); }
.problem p { margin: .2rem 0 0; color: var(--bad); overflow-wrap: anywhere; }
.downloads { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; }
.downloads a { border: 1px solid var(--accent); color: var(--accent); border-radius: 6px;
  padding: .5rem .9rem; text-decoration: none; font-weight: 550; }
.downloads a:hover { background: var(--soft); }
.card dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; }
.card dt { font-weight: 600; }
.card dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.card h3 { font-size: 1rem; font-weight: 650; margin: 1.1rem 0 .4rem; }
.card :is(table, thead, tbody, tr) { border: 0 !important; background: none; }
.card table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.card caption { text-align: left; color: var(--quiet); font-size: .875rem; padding-bottom: .3rem; }
.card :is(th, td) { text-align: left; padding: .25rem 1.2rem .25rem 0 !important;
  font-weight: 400; border: 0 !important; border-bottom: 1px solid var(--line) !important; }
.card ul { margin: 0; padding-left: 1.2rem; list-style: disc; }
@media (max-width: 40rem) {
  .gradio-container .main { padding: .75rem .75rem 2rem; }
  .gradio-container h1 { font-size: 1.3rem; }
  .controls, .card dl { grid-template-columns: 1fr; }
  .ticks { height: 2.3rem; }
  .ticks span:nth-child(3) { top: 1.15rem; }
  .card dd { margin-bottom: .4rem; }
  .case > summary { gap: .5rem; padding-right: .6rem; }
  .case > div { padding: .75rem; }
  .card :is(th, td) { padding-right: .6rem; }
}
"""

# Blending happens in the browser: the model is not asked again. A browser may refuse a long address
# as a download, but not what is made of it here.
SCRIPT = """
() => {
  document.documentElement.lang = "en";
  const status = document.getElementById("status");
  if (status) { status.setAttribute("role", "status"); status.setAttribute("aria-live", "polite"); }
  document.addEventListener("input", (event) => {
    const results = event.target.closest(".blend") && event.target.closest(".results");
    if (!results) return;
    const value = event.target.value;
    results.style.setProperty("--blend", value);
    for (const control of results.querySelectorAll(".blend")) {
      control.querySelector("input").value = value;
      control.querySelector("output").value = Number(value).toFixed(2);
    }
  });
  const check = (event, files) => {
    const refusal = document.getElementById("refusal");
    if (!files || !refusal || !event.target.closest("#files")) return;
    const { bytes, images } = refusal.dataset;
    const size = Array.from(files).reduce((sum, file) => sum + file.size, 0);
    refusal.textContent =
      files.length > images ? `${files.length} files are too many: choose at most ${images}.`
      : size > bytes ? `These files have ${Math.ceil(size / 2 ** 20)} MiB together, which is too `
        + `much: choose fewer or smaller ones.` : "";
    if (!refusal.textContent) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    event.target.value = "";
  };
  document.addEventListener("change", (event) => check(event, event.target.files), true);
  document.addEventListener("drop", (event) => check(event, event.dataTransfer.files), true);
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a.download[href^='data:']");
    if (!link) return;
    event.preventDefault();
    const [head, content] = link.getAttribute("href").split(",");
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const address = URL.createObjectURL(new Blob([bytes], { type: head.slice(5).split(";")[0] }));
    const saved = document.createElement("a");
    Object.assign(saved, { href: address, download: link.download }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
}
"""
