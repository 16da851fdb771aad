"""Look and behaviour of the report page: light, dark and paper, and a button that copies."""

from __future__ import annotations

CSS = """
:root{color-scheme:light dark;--page:#fff;--panel:#f6f7f9;--ink:#1a1d21;--soft:#575e68;--rule:#d9dde3;
--best:#0a5fc2;--baseline:#b04a00;--other:#767e8a;--oom:#c01f2e;--front:#0a5fc2;--good:#0b6b3a;--bad:#a8201a;
--weights:#56637a;--kv:#14786c;--activations:#c9830f;--graphs:#8f4fa8;--runtime:#9aa1ab;--row:#eaf2fd;--base-row:#fdf1e6}
@media (prefers-color-scheme:dark){:root{--page:#14171b;--panel:#1d2126;--ink:#e9ebee;--soft:#a6adb8;--rule:#383e47;
--best:#6fb1ff;--baseline:#f29d52;--other:#949ca8;--oom:#ff7480;--front:#6fb1ff;--good:#5fd08f;--bad:#ff8a80;
--weights:#5f6d86;--kv:#1a8578;--activations:#d9982f;--graphs:#a869c0;--runtime:#747c88;--row:#1b2a3d;--base-row:#33261a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.45 system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}
.banner{margin:0;padding:9px 24px;font-size:16px;-webkit-print-color-adjust:exact;print-color-adjust:exact}
.banner strong{letter-spacing:.09em;padding:2px 9px;margin-right:8px;border-radius:3px}
.banner.simulated,.banner.predicted{background:#ffd338;color:#1d1600;border-bottom:3px solid #1d1600}
.banner.simulated strong,.banner.predicted strong{background:#1d1600;color:#ffd338}
.banner.measured{background:#0d6b3c;color:#fff}.banner.measured strong{background:#fff;color:#0d6b3c}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:14px}footer{padding-bottom:32px;color:var(--soft)}
h1{font-size:25px;line-height:1.2;margin:0 0 2px}h2{font-size:19px;margin:0}h3{font-size:16px;margin:0 0 8px}
.meta{color:var(--soft);margin:0;overflow-wrap:anywhere}nav a{margin-right:16px}a{color:var(--best)}
section.workload{margin-top:16px;padding-top:14px;border-top:1px solid var(--rule)}section.part{margin-top:26px}
.verdict{font-size:20px;line-height:1.35;font-weight:600;margin:4px 0 12px}.verdict.nothing{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:10px;margin:0 0 18px;padding:0}
.tiles div{background:var(--panel);border-radius:6px;padding:9px 13px;border-left:4px solid var(--rule)}
.tiles div.lead{border-left-color:var(--best)}
.tiles dt{color:var(--soft);font-size:13px}.tiles dd{margin:0}
.tiles .value{font-size:23px;font-weight:650;line-height:1.2}
.tiles .aside{color:var(--soft);font-size:13px}
.two{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:26px;align-items:start}
@media (max-width:1000px){.two{grid-template-columns:minmax(0,1fr)}}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
caption{text-align:left;color:var(--soft);font-size:13px;padding:0 0 5px}
th,td{padding:3px 4px 3px 10px;text-align:right;vertical-align:top;border-bottom:1px solid var(--rule);font-weight:400}
tr>:first-child,.words{text-align:left}
tr>:first-child{padding-left:4px}thead th{color:var(--soft);font-size:13px;vertical-align:bottom}
thead th[scope=colgroup]{text-align:left;border-bottom:0;padding-top:4px}
tbody th{overflow-wrap:break-word}tr.differs td,tr.differs th{font-weight:600}
tr.first-metric>*{border-top:2px solid var(--soft)}
tr.best>*{background:var(--row)}tr.baseline>*{background:var(--base-row)}tr.lost{color:var(--soft)}
.change,.scroll td{white-space:nowrap}.scroll td.words{white-space:normal}.memory .scroll{max-width:560px}
.trials table{font-size:13px}.trials td.words{min-width:74px}.outcome{min-width:200px}
.outcome summary{font-weight:400;padding:0}
.badge{font-size:11px;font-weight:700;padding:0 5px;border-radius:3px;border:1px solid;white-space:nowrap}
.badge.best{color:var(--best)}.badge.baseline{color:var(--baseline)}
.better{color:var(--good)}.worse{color:var(--bad)}.aside{color:var(--soft)}.nowrap{white-space:nowrap}
pre{margin:0;padding:11px 13px;background:var(--panel);border:1px solid var(--rule);border-radius:6px;overflow-x:auto;
font:12px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;tab-size:2}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.93em}
pre code{font-size:1em}
.copyable{position:relative;margin-bottom:10px}
button{position:absolute;top:7px;right:9px;font:inherit;font-size:13px;padding:2px 12px;border:1px solid var(--soft);
border-radius:5px;background:var(--page);color:var(--ink);cursor:pointer}button[hidden]{display:none}
:focus-visible{outline:3px solid var(--best);outline-offset:2px}
details{margin:0 0 9px}summary{cursor:pointer;font-weight:600;padding:3px 0}
figure{margin:0}figure.wide{overflow-x:auto}figure.wide svg[role=img]{min-width:700px}
figure svg[role=img]{width:100%;height:auto;display:block}
figcaption{color:var(--soft);font-size:13px}
.legend{list-style:none;font-size:13px;display:flex;flex-wrap:wrap;gap:2px 16px;margin:4px 0;padding:0}
.legend svg,th svg{vertical-align:-3px;margin-right:5px}
dl.facts{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:3px 18px;margin:0 0 12px}
dl.facts dt{color:var(--soft)}dl.facts dd{margin:0;overflow-wrap:anywhere}
svg text{font-size:12px;fill:var(--ink)}svg .tick{fill:var(--soft);font-size:11px}svg .axis-title{fill:var(--soft)}
svg .grid{stroke:var(--rule);stroke-width:1}svg .axis{stroke:var(--soft);stroke-width:1}
svg .label{paint-order:stroke;stroke:var(--page);stroke-width:4px;stroke-linejoin:round;font-weight:600}
svg .label.best{fill:var(--best)}svg .label.baseline{fill:var(--baseline)}svg .label.oom{fill:var(--oom);font-size:11px}
svg .mark{stroke:var(--page);stroke-width:1}svg .mark.best{fill:var(--best)}svg .mark.baseline{fill:var(--baseline)}
svg .mark.other{fill:var(--other);fill-opacity:.85}
svg .mark.hollow{fill:var(--page);stroke:var(--other);stroke-width:1.5}svg .mark.best.hollow{stroke:var(--best)}
svg .mark.baseline.hollow{stroke:var(--baseline)}
svg .oom{stroke:var(--oom);stroke-width:2.4;fill:none}svg text.oom{stroke:var(--page)}
svg .rejected{stroke:var(--soft);stroke-width:2}svg .hopeless{stroke:var(--ink);stroke-width:2}
svg .failed{fill:var(--oom)}
svg .front{fill:none;stroke:var(--front);stroke-width:1.6;stroke-opacity:.75}
svg .level{stroke:var(--baseline);stroke-width:1.4;stroke-dasharray:5 4}
svg .lead{fill:none;stroke-width:1;stroke:var(--best)}svg .lead.baseline{stroke:var(--baseline)}
svg .stamp{font-weight:700;fill:var(--soft);text-transform:uppercase;letter-spacing:.06em;font-size:11px}
svg .part{stroke:var(--page);stroke-width:1}svg .weights{fill:var(--weights)}svg .kv_pool{fill:var(--kv)}
svg .activations{fill:var(--activations)}svg .cuda_graphs{fill:var(--graphs)}svg .other.part{fill:var(--runtime)}
svg .headroom{fill:none;stroke:var(--soft);stroke-dasharray:3 3}svg .capacity{stroke:var(--ink);stroke-width:2.5}
svg .in-part{fill:#fff;font-weight:600}svg .in-part.headroom{fill:var(--ink);stroke:none}svg .in-part.other{fill:#111}
@media (max-width:600px){.banner{padding:9px 12px}header,main,footer{padding-left:12px;padding-right:12px}
table{font-size:13px}th,td{padding-left:6px}}
@media print{:root{--page:#fff;--panel:#fff;--ink:#000;--soft:#444;--rule:#bbb;--best:#0a5fc2;--baseline:#b04a00;
--other:#767e8a;--oom:#c01f2e;--front:#0a5fc2;--good:#0b6b3a;--bad:#a8201a;--row:#eaf2fd;--base-row:#fdf1e6}
body{font-size:10.5pt}button{display:none}.scroll{overflow:visible}pre{white-space:pre-wrap;overflow-wrap:anywhere}
figure,tr,.tiles div{break-inside:avoid}h2,h3{break-after:avoid}
details::details-content{content-visibility:visible;display:block}
.change,.scroll td{white-space:nowrap}.scroll td.words{white-space:normal}.memory .scroll{max-width:560px}
.trials table{font-size:7.5pt}section.part.trials{break-before:page}}
"""

SCRIPT = """
for (const button of document.querySelectorAll("button[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  const say = (word) => { button.textContent = word; setTimeout(() => { button.textContent = "Copy"; }, 1600);
    document.getElementById("spoken").textContent = word; };
  button.hidden = false;
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(source.textContent); return say("Copied"); } catch (refused) {}
    const range = document.createRange(); range.selectNodeContents(source);
    const selection = getSelection(); selection.removeAllRanges(); selection.addRange(range);
    say(document.execCommand("copy") ? "Copied" : "Press Ctrl+C");
  });
}
"""
