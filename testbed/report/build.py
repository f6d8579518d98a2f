"""Rebuild everything that a run's folder derives from its raw data, the same bytes every time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator

from testbed.measure.analysis import Randomness, analyse
from testbed.measure.frames import Frame
from testbed.measure.summary import Summary, summarise
from testbed.report.html import render
from testbed.report.junit import junit_xml
from testbed.report.load import RunFolder, check_access, frames_of, load, raw_files, to_run
from testbed.report.markdown import markdown
from testbed.report.pictures import draw
from testbed.report.write import write_checksums, write_gaps, write_pictures, write_probes, write_tables


def build_report(
    run_dir: Path,
    *,
    fail_if: Sequence[str] = (),
    frames: Callable[[RunFolder], Iterable[Frame]] = frames_of,
) -> Summary:
    """Measure a run again and write its reports.

    Writes summary.json, report.html, report.md, junit.xml, plots/, gaps.parquet, probes/*.parquet (from
    JSONL, which it removes, and from captures), migrations.csv, gaps.csv, probes.csv and SHA256SUMS.

    Args:
        run_dir: the run's folder.
        fail_if: threshold expressions, beside those in the manifest (`fail_if`).
        frames: gives the captured frames of a folder.

    Returns:
        the content of summary.json.

    Raises:
        RunFolderError: if the folder is not a run's, or may not be read or written.
        ThresholdError: for an expression that cannot be read.
    """
    check_access(run_dir)
    folder = load(run_dir)
    expressions = list(dict.fromkeys([*(folder.manifest.get("fail_if") or ()), *fail_if]))
    run = to_run(folder, frames(folder))
    analysis = analyse(run)
    summary = summarise(analysis, seeded(int(folder.manifest.get("seed") or 0)), expressions)
    pictures = draw(analysis, summary)
    is_first = bool(list((run_dir / "probes").glob("*.jsonl")))
    logs = [log for log in run.series if is_first or log.captured]
    if logs:
        write_probes(run_dir / "probes", logs)
    write_gaps(run_dir / "gaps.parquet", summary.data["migrations"])
    write_tables(run_dir, analysis, summary.data["migrations"])
    write_pictures(run_dir / "plots", pictures.all())
    (run_dir / "summary.json").write_text(summary.to_json())
    files = raw_files(run_dir)
    (run_dir / "report.html").write_text(render(summary, folder.manifest, pictures, files, folder.topology_svg))
    text = markdown(summary, folder.manifest, pictures, files, topology=bool(folder.topology_svg))
    (run_dir / "report.md").write_text(text)
    (run_dir / "junit.xml").write_text(junit_xml(summary))
    write_checksums(run_dir)
    return summary


def seeded(seed: int) -> Randomness:
    """Generators that depend on the run's seed and the figure's name only."""

    def generator(name: str) -> Generator:
        return np.random.default_rng([seed, zlib.crc32(name.encode())])

    return generator
