"""The look of the report page: one style sheet, light and dark, system fonts, nothing loaded."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #22252a; --soft: #5d646e; --faint: #9aa1ab;
  --line: #e4e2dd; --rail: #eceae6; --accent: #3f6fa8; --warm: #b8653a; --good: #3c7d55;
  --series-1: #3f6fa8; --series-2: #c4703f; --series-3: #4a8a63;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181c; --card: #1e2126; --ink: #e4e6ea; --soft: #a3aab5; --faint: #727a86;
    --line: #31353c; --rail: #2b2f36; --accent: #82abde; --warm: #e09a6c; --good: #7dbb94;
    --series-1: #82abde; --series-2: #e09a6c; --series-3: #7dbb94;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.015em; }
h2 { font-size: 19px; margin: 52px 0 14px; letter-spacing: -0.005em; }
h3 { font-size: 15px; margin: 24px 0 8px; }
.panel > h3:first-child { margin-top: 0; }
p { margin: 0 0 12px; max-width: 46em; }
.soft, .subtitle, caption { color: var(--soft); }
.subtitle { margin: 0; }
a { color: var(--accent); text-underline-offset: 2px; }
code { font: 13px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px;
  margin: 28px 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.card .label { color: var(--soft); font-size: 13px; }
.card .value { font-size: 21px; font-weight: 600; letter-spacing: -0.01em;
  font-variant-numeric: tabular-nums; margin: 2px 0; }
.card .note { color: var(--soft); font-size: 13px; line-height: 1.4; }
.panel { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; overflow-x: auto; }
.graph { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.graph .node { fill: var(--paper); stroke: var(--line); stroke-width: 1.2; }
.graph a:hover .node { stroke: var(--accent); }
.graph a { text-decoration: none; }
.graph .name { fill: var(--ink); font: 600 13px system-ui, sans-serif; }
.graph .note { fill: var(--soft); font: 11.5px system-ui, sans-serif; }
.graph .edge { fill: none; stroke: var(--faint); stroke-width: 1.3; }
.graph .head { fill: var(--faint); }
.graph .rail { fill: var(--rail); }
.graph .time { fill: var(--accent); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: 13px; padding: 0 0 8px; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: 13px; white-space: nowrap; }
th, td { padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th.n, td.n { text-align: right; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
tr:target td { background: color-mix(in srgb, var(--accent) 12%, transparent); }
.funnel { display: block; width: 100%; max-width: 720px; height: auto; }
.funnel text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.funnel .n { fill: var(--soft); font-variant-numeric: tabular-nums; }
.funnel .came { fill: var(--faint); } .funnel .kept { fill: var(--good); }
.funnel .left { fill: color-mix(in srgb, var(--faint) 60%, var(--card)); }
.funnel .lost { fill: var(--warm); }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 16px; }
.chart { display: block; width: 100%; height: auto; }
.chart text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif !important; }
.score { display: block; position: relative; width: 150px; height: 14px; margin-top: 0;
  border-radius: 3px; background: var(--rail); }
.score i { position: absolute; top: 0; height: 14px; border-radius: 3px;
  background: color-mix(in srgb, var(--accent) 45%, transparent); }
.score b { position: absolute; top: 0; width: 3px; height: 14px; margin-left: -1px;
  border-radius: 1px; background: var(--accent); }
details { border-top: 1px solid var(--line); padding: 9px 0; }
details:first-child { border-top: 0; padding-top: 0; }
details:last-child { padding-bottom: 0; }
summary { cursor: pointer; }
blockquote { margin: 10px 0 4px; padding: 0 0 0 14px; border-left: 3px solid var(--line); }
blockquote p { white-space: pre-wrap; overflow-wrap: anywhere; max-width: none; margin: 0;
  font-size: 14px; }
blockquote footer { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
@media (max-width: 640px) { main { padding: 24px 14px 48px; } h1 { font-size: 25px; } }
@media print { .panel, .card { break-inside: avoid; } }
""".strip()
