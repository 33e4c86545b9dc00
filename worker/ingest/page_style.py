"""The style sheet of the dataset's page: light, dark and on paper."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--ink:#1b1f24;--soft:#59626d;--line:#d9dee4;--card:#f5f7f9;
--s0:#0072b2;--s1:#e69f00;--s2:#009e73;--bad:#b3261e;--warn:#8a5a00;--good:#00694c}
@media (prefers-color-scheme:dark){:root{--bg:#14181d;--ink:#e6e9ed;--soft:#9aa5b1;--line:#323a44;
--card:#1d232a;--s0:#56b4e9;--s1:#e69f00;--s2:#2fbf94;--bad:#ff8a80;--warn:#f0b64a;--good:#5fd3a9}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:26px;margin:0 0 14px;overflow-wrap:anywhere}h2{font-size:19px;margin:36px 0 10px}
h3{font-size:15px;margin:0 0 8px}
code{font-size:12.5px;overflow-wrap:anywhere}
.tiles{display:flex;flex-wrap:wrap;gap:10px}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:8px 14px;
color:var(--soft);font-size:13px}
.tiles b{display:block;color:var(--ink);font-size:20px;font-variant-numeric:tabular-nums}
.chip{display:inline-block;border:1px solid;border-radius:99px;padding:0 9px;font-size:12px;font-weight:600;
line-height:1.6;vertical-align:middle}
.ready,.inspected{color:var(--good)}.invalid,.error{color:var(--bad)}.warning{color:var(--warn)}
.info{color:var(--soft)}
section{overflow-x:auto}table{border-collapse:collapse;width:100%;min-width:640px;font-size:13.5px}
th{color:var(--soft);font-weight:600;text-align:left}
th,td{border-bottom:1px solid var(--line);padding:6px 10px 6px 0;vertical-align:top;overflow-wrap:anywhere}
th{overflow-wrap:normal}td:first-child,td code{white-space:nowrap}
.num{text-align:right;font-variant-numeric:tabular-nums}
figure{margin:0}figcaption{color:var(--soft);font-size:13px;overflow-wrap:anywhere}
.charts{columns:2 430px;column-gap:16px}
.charts figure{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px;
break-inside:avoid;margin-bottom:16px}
svg{display:block;width:100%;height:auto;margin-bottom:8px}
svg text{fill:var(--soft);font:12px system-ui,sans-serif}svg .n{fill:var(--ink)}
.s0{fill:var(--s0)}.s1{fill:var(--s1)}.s2{fill:var(--s2)}
.heat{fill:var(--s0)}.frame{fill:none;stroke:var(--line)}.axis{stroke:var(--line)}
.legend span{display:inline-block;margin-right:12px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:5px}
i.s0{background:var(--s0)}i.s1{background:var(--s1)}i.s2{background:var(--s2)}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:16px}
.pictures figure>div{height:200px;background:var(--card);border-radius:6px;display:flex;align-items:center;
justify-content:center;overflow:hidden}
.pictures img{max-width:100%;max-height:100%}
.pictures figcaption{font-size:11.5px;line-height:1.35;margin-top:4px}
@media print{:root{color-scheme:light;--bg:#fff;--ink:#000;--soft:#444;--line:#bbb;--card:#fff;--s0:#0072b2;
--s1:#e69f00;--s2:#009e73;--bad:#b3261e;--warn:#8a5a00;--good:#00694c}
body{font-size:11px;print-color-adjust:exact;-webkit-print-color-adjust:exact}main{max-width:none;padding:0}
figure,tr{break-inside:avoid}h2{break-after:avoid}section{overflow:visible}.charts{columns:2 auto}
.pictures{grid-template-columns:repeat(5,1fr)}}
"""
