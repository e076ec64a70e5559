"""How a report looks, on a screen and on paper."""

STYLE = """
:root { --ink: #1a1a1a; --quiet: #6f6f6f; --line: #dcdcdc; --model: #22577a; --alarm: #b3372f; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { margin: 0; font-size: 2rem; line-height: 1.2; }
h2 { margin: 2.75rem 0 .75rem; font-size: 1.25rem; }
p { max-width: 46rem; margin: .5rem 0; }
.name { margin: 0 0 1rem; color: var(--quiet); overflow-wrap: anywhere; }
.banner { padding: .6rem .9rem; border-left: 4px solid var(--alarm); background: #fbf1f0; }
.verdict { margin-top: 1.25rem; font-size: 1.2rem; line-height: 1.45; }
.quiet { color: var(--quiet); font-size: .85em; font-weight: normal; }
.limits { white-space: nowrap; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .75rem .45rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; line-height: 1.35; }
th { color: var(--quiet); font-size: .85rem; font-weight: 600; vertical-align: bottom; }
.subgroups, .subgroups th { font-size: .85rem; }
.figures td:nth-child(1) { width: 11.5rem; }
.figures td:nth-child(2) { width: 4.5rem; }
.figures td:nth-child(3) { width: 11.5rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; }
img { display: block; width: 100%; max-width: 27rem; height: auto; }
figcaption { max-width: 27rem; margin-top: .25rem; color: var(--quiet); font-size: .85rem;
  line-height: 1.4; }
@media (max-width: 44rem) {
  section { overflow-x: auto; }
  .plots { grid-template-columns: 1fr; }
}
@page { margin: 16mm 14mm; }
@media print {
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  h2 { margin-top: 1.5rem; break-after: avoid; }
  .plots { grid-template-columns: 1fr 1fr; gap: 1rem; }
  p { break-inside: avoid; }
  section > p { break-after: avoid; }
  tr, figure, .banner { break-inside: avoid; }
  .subgroups, .subgroups th { font-size: 8pt; }
  .subgroups td, .subgroups th { padding-right: .4rem; }
  thead { display: table-header-group; }
  .banner { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
