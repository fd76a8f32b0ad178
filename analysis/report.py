"""One page for a run: what was run, what it found, every figure. Opens without a network."""

import base64
import html
from pathlib import Path

import xarray as xr

from analysis import curves, density, drift, gradients, grid, spectra, summary, trainability
from analysis.command import MOST_SETTINGS, Figures, arguments, exit_with, save
from analysis.load import load_now, settings, values

# Of every setting swept, and of a run as a whole.
FIGURES: dict[str, Figures] = {
    "trainability": trainability.figures,
    "gradients": gradients.figures,
    "spectra": spectra.figures,
    "density": density.figures,
    "drift": drift.figures,
    "curves": curves.figures,
}
WHOLE: dict[str, Figures] = {"grid": grid.figures}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
tr.first td { border-top: 2px solid #999; font-weight: 600; }
figure { margin: 1.5rem 0; }
img { width: 100%; max-width: 46rem; display: block; margin: 0 auto; }
figcaption { max-width: 46rem; margin: 0.3rem auto 0; }
.scroll { overflow-x: auto; }
@media print { body { margin: 0; } figure, tr { break-inside: avoid; } }
"""


def write(run: Path, out: Path | None = None) -> list[Path]:
    """Draws every figure of a run and writes `report.html`; returns the files. What `analysis.write_report` does."""
    results = load_now(run)
    shown: dict[Path, str] = {}
    for figures in WHOLE.values():
        shown |= save(run, figures, results, out, whole=True)
    for figures in FIGURES.values():
        shown |= save(run, figures, results, out)
    page = (out or run) / "report.html"
    page.write_text(_page(run.resolve().name, results, shown), encoding="utf-8")
    return [*shown, page]


def _page(name: str, results: xr.Dataset, shown: dict[Path, str]) -> str:
    config, provenance = results.attrs["config"], results.attrs["provenance"]
    pictures = "\n".join(_picture(path, finding) for path, finding in shown.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(name)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(name)}</h1>
<p>{results.sizes["member"]} networks on {html.escape(config["dataset"])}, {config["steps"]} steps of
{html.escape(config["optimizer"])}, batch {config["batch_size"]}, width {config["width"]};
{html.escape(provenance["status"])} in {provenance.get("wall_seconds", "?")} s
on {html.escape(", ".join(provenance["devices"]))}.</p>
{_omitted(results)}
{_table(results)}
{pictures}
<h2>Config</h2>
{_facts(config)}
<h2>Provenance</h2>
{_facts(provenance)}
</body></html>
"""


def _picture(path: Path, finding: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{html.escape(finding)}</figcaption></figure>"


def _omitted(results: xr.Dataset) -> str:
    count = len(settings(results))
    if count <= MOST_SETTINGS:
        return ""
    return (
        f"<p>{MOST_SETTINGS} of {count} settings have figures of their own; the table and the heat maps have all.</p>"
    )


def _table(results: xr.Dataset) -> str:
    depths = "".join(f"<th>{depth}</th>" for depth in values(results, "depth"))
    lines, last = [], None
    for row in summary.rows(results):
        if row.quantity != last:
            lines.append(f'<tr class="first"><td colspan="99">{row.quantity}</td></tr>')
        name = html.escape(f"{row.net} {row.setting}".strip())
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells)
        lines.append(f"<tr><td>{name}</td><td>norm {html.escape(row.norm)}</td>{cells}</tr>")
        last = row.quantity
    notes = "".join(f"<p>{html.escape(line)}</p>" for line in summary.divergences(results))
    return f'<div class="scroll"><table><tr><th></th><th>depth</th>{depths}</tr>{"".join(lines)}</table></div>{notes}'


def _facts(facts: dict) -> str:
    lines = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in facts.items())
    return f'<div class="scroll"><table class="facts">{lines}</table></div>'


if __name__ == "__main__":
    given = arguments(__doc__, None)
    exit_with(lambda: write(given.run, given.out))
