"""What the schema says about itself, to code that is older than it."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables import Base


class SchemaCompatibility(Base):
    """One row, which `service.db.migrate` writes with each upgrade."""

    __tablename__ = "schema_compatibility"

    oldest_code: Mapped[str] = mapped_column(String(32), primary_key=True)  # newest revision of the oldest code
