"""How pages look: by day and by night, on a wide screen, on a phone, and on paper. No font or picture is loaded."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #5a6472; --line: #dde1e7;
  --good: #1a7f4b; --good-ground: #ddf3e6; --bad: #b3261e; --bad-ground: #fbe3e1;
  --odd: #8a5a00; --odd-ground: #fdf0d2; --none-ground: #eef0f3; --accent: #2f6fdb; --shade: #0002;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12151a; --card: #1b2027; --ink: #e8ebf0; --soft: #9aa5b4; --line: #323a45;
    --good: #6fd8a0; --good-ground: #143524; --bad: #ff9a92; --bad-ground: #44201d;
    --odd: #f0c36b; --odd-ground: #3c2f12; --none-ground: #242a33; --accent: #7aa8f5; --shade: #0009;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.08rem; margin: 0 0 4px; }
h3 { font-size: .95rem; margin: 18px 0 6px; }
p { margin: 4px 0; }
.note, .where { color: var(--soft); font-size: .88rem; overflow-wrap: anywhere; }
.verdict { margin: 16px 0; padding: 12px 16px; border-radius: 10px; border-left: 5px solid; overflow-wrap: anywhere; }
.verdict b { display: block; font-size: 1.05rem; }
.verdict ul { margin: 6px 0 0; padding-left: 20px; }
.verdict.good { background: var(--good-ground); border-color: var(--good); }
.verdict.good b { color: var(--good); }
.verdict.bad { background: var(--bad-ground); border-color: var(--bad); }
.verdict.bad b { color: var(--bad); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px; margin: 16px 0; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin: 16px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 10px 14px; margin: 0; }
.tile dt { color: var(--soft); font-size: .8rem; }
.tile dd { margin: 0; font-size: 1.4rem; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.3; }
.tile.bad dd { color: var(--bad); }
.tile.good dd { color: var(--good); }
.scroll { overflow-x: auto; margin: 8px 0 0; background:
  linear-gradient(90deg, var(--card) 40%, transparent) left / 36px 100% no-repeat local,
  linear-gradient(270deg, var(--card) 40%, transparent) right / 36px 100% no-repeat local,
  linear-gradient(90deg, var(--shade), transparent) left / 10px 100% no-repeat scroll,
  linear-gradient(270deg, var(--shade), transparent) right / 10px 100% no-repeat scroll; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .88rem; }
th, td { text-align: left; padding: 6px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; vertical-align: bottom; }
th.number { text-align: right; }
tbody tr:last-child > * { border-bottom: 0; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td { min-width: 3.2em; white-space: nowrap; }
td .note { white-space: normal; min-width: 12em; }
.words { white-space: normal; min-width: 7em; }
.wide { min-width: 20em; white-space: normal; overflow-wrap: anywhere; }
code { font: .92em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.matrix { width: auto; border-spacing: 3px; }
.matrix th, .matrix td { border: 0; padding: 5px 9px; }
.matrix th[scope="row"] { position: sticky; left: 0; background: var(--card); text-align: right;
  vertical-align: middle; z-index: 1; }
.matrix thead th { text-align: center; }
.matrix td { border-radius: 7px; text-align: center; white-space: nowrap; min-width: 5em; vertical-align: middle; }
.matrix td small { display: block; font-size: .78rem; opacity: .9; }
.cell-built { background: var(--good-ground); color: var(--good); }
.cell-missed { background: var(--bad-ground); color: var(--bad); }
.cell-excluded { background: var(--odd-ground); color: var(--odd); }
.cell-none { background: var(--none-ground); color: var(--soft); }
.key { display: flex; flex-wrap: wrap; gap: 6px 14px; margin: 8px 0 0; padding: 0; list-style: none;
  font-size: .84rem; }
.key span { border-radius: 5px; padding: 1px 8px; margin-right: 5px; }
.ranks { display: grid; grid-template-columns: repeat(auto-fill, minmax(4.1em, 1fr)); gap: 4px; padding: 0;
  margin: 6px 0 0; list-style: none; }
.ranks li { padding: 3px 5px; border-radius: 6px; text-align: center; font-size: .8rem;
  font-variant-numeric: tabular-nums; }
.bar { display: grid; grid-template-columns: minmax(36px, 1fr) 4.8em; gap: 6px; align-items: center; min-width: 8.6em; }
.bar svg { width: 100%; height: 9px; background: var(--none-ground); border-radius: 5px; display: block; }
.bar rect { fill: var(--accent); }
.bar b { font-weight: 500; font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
details { margin: 8px 0 0; }
summary { cursor: pointer; color: var(--accent); }
footer { color: var(--soft); font-size: .84rem; margin-top: 20px; }
@media (max-width: 640px) {
  main { padding: 14px 10px 32px; }
  h1 { font-size: 1.22rem; }
  section { padding: 12px; border-radius: 10px; }
  .tiles { grid-template-columns: repeat(2, 1fr); gap: 8px; }
  .tile dd { font-size: 1.15rem; }
  th, td { padding: 5px 7px; }
  .wide { min-width: 13em; }
}
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""
