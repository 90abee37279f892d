"""Help texts in groups, wrapped and never cut: tables of long flags and variables don't fit 80 columns."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class GroupedCommand(TyperCommand):
    """A command whose options are listed under the groups that they declare."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments and options, a section for each group."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                plain = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or plain, []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)
