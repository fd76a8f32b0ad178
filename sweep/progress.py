"""A run's live progress: steps, steps per second, time left."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} steps/s" if task.speed else "- steps/s")


class RunProgress(Progress):
    """A progress bar over all steps of all programs, whose description says what is going on."""

    def __init__(self, total_steps: int, console: Console):
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self.add_task("loading", total=total_steps)

    def doing(self, what: str) -> None:
        """Says what is going on now."""
        self.update(self._task, description=what, refresh=True)

    def took(self, steps: int) -> None:
        """Counts steps that were taken."""
        self.update(self._task, advance=steps)
