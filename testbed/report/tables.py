"""Tables as data, so that the page and the Markdown say the same: columns, cells, rows that open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of text in a table.

    Attributes:
        text: what it says; what was not measured is a dash.
        kind: "" or a class of the page's style sheet: "ok", "bad", "flag", "sub", "strong", "code".
        more: subordinate words behind it.
        href: where it leads: a file of the run's folder, or "#" and a place in the page.
        dot: class of the coloured dot before it, "" for none.
    """

    text: str
    kind: str = ""
    more: str = ""
    href: str = ""
    dot: str = ""

    def markdown(self) -> str:
        """The cell in a Markdown table; places in the page are not places in a Markdown file."""
        text = self.text.replace("|", "\\|").replace("\n", " ")
        if self.kind == "code":
            text = f"`{text}`"
        elif self.kind in ("bad", "strong") and text:
            text = f"**{text}**"
        if self.href and not self.href.startswith("#"):
            text = f"[{text}]({self.href})"
        return f"{text} {self.more}" if self.more else text


#: What a cell may be given as: text, a cell, or several, one below the other.
Content = str | Cell | Sequence[Cell]

MISSING = "—"


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        name: its heading.
        numeric: whether it has figures, which are aligned at the right.
        inline: whether the pieces of its cells stand side by side, not one below the other.
        one_line: whether its cells are not broken into lines where there is room.
    """

    name: str
    numeric: bool = False
    inline: bool = False
    one_line: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row; of each cell the pieces, one below the other. `detail` opens below it."""

    cells: tuple[tuple[Cell, ...], ...]
    detail: Detail | None = None


@dataclass(frozen=True, slots=True)
class Detail:
    """A table that opens below a row.

    Attributes:
        summary: what to click on.
        table: what opens.
        identifier: of the place in the page; a link to it opens it.
    """

    summary: str
    table: Table
    identifier: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        columns: their headings.
        rows: the rows.
        note: what stands below it, "" for nothing.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: tuple[Cell, ...] = ()

    @classmethod
    def of(cls, columns: Iterable[str | Column], rows: Iterable[Sequence[Content] | Row], note: Content = ()) -> Table:
        """Make one of texts and cells."""
        made = tuple(line if isinstance(line, Row) else row(line) for line in rows)
        return cls(heads(*columns), made, pieces(note))

    def without_empty(self) -> Table:
        """The same without the columns in which no row has anything; the first column stays."""
        kept = [
            index
            for index in range(len(self.columns))
            if index == 0 or any(cell.text not in ("", MISSING) for line in self.rows for cell in line.cells[index])
        ]
        rows = tuple(replace(line, cells=tuple(line.cells[index] for index in kept)) for line in self.rows)
        return replace(self, columns=tuple(self.columns[index] for index in kept), rows=rows)

    def markdown(self) -> list[str]:
        """Its lines as Markdown, columns aligned, what opens in the page below it; [] without rows."""
        if not self.rows:
            return []
        cells = [[column.name.replace("|", "\\|") for column in self.columns]]
        cells += [
            ["; ".join(cell.markdown() for cell in cell_pieces) for cell_pieces in line.cells] for line in self.rows
        ]
        widths = [max(3, *(len(line[index]) for line in cells)) for index in range(len(self.columns))]
        rule = [
            "-" * (width - 1) + (":" if column.numeric else "-")
            for width, column in zip(widths, self.columns, strict=True)
        ]
        lines = [_line(cells[0], widths), _line(rule, widths), *(_line(line, widths) for line in cells[1:]), ""]
        if self.note:
            lines += [" ".join(cell.markdown() for cell in self.note), ""]
        for line in self.rows:
            if line.detail:
                lines += [f"{line.detail.summary}:", "", *line.detail.table.markdown()]
        return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def pieces(content: Content) -> tuple[Cell, ...]:
    """The pieces of a cell's content."""
    if isinstance(content, str):
        return (Cell(content),)
    return (content,) if isinstance(content, Cell) else tuple(content)


def row(contents: Sequence[Content], detail: Detail | None = None) -> Row:
    """A row of texts and cells."""
    return Row(tuple(pieces(content) for content in contents), detail)


def heads(*columns: str | Column) -> tuple[Column, ...]:
    """Columns by their names, or as they are."""
    return tuple(Column(column) if isinstance(column, str) else column for column in columns)


def numeric(*names: str) -> tuple[Column, ...]:
    """Columns of figures."""
    return tuple(Column(name, numeric=True) for name in names)


def yes_or_no(ok: bool | None, unknown: str, *, no: str = "no", flag: bool = False) -> Cell:
    """Whether something holds.

    Args:
        ok: None if nobody looked.
        unknown: what is said then.
        no: what is said if it does not hold.
        flag: whether that is only worth a look, not a failure.
    """
    if ok is None:
        return Cell(unknown, "flag")
    return Cell("yes", "ok") if ok else Cell(no, "flag" if flag else "bad")
