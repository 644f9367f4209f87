"""Let a result carry the page that shows it."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field


class Paged(BaseModel):
    """A result and its HTML page; the page is stored as a file of its own, not among the values."""

    # An undefined metric is NaN; JSON null would not load again.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    page: str = Field("", exclude=True, repr=False)

    def with_page(self, page: str) -> Self:
        """Return the same result with a page."""
        return self.model_copy(update={"page": page})
