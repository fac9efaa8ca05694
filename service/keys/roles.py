"""What a key or a member may do. Each role may do all that the ones before it may."""

from enum import StrEnum
from typing import Literal


class Role(StrEnum):
    VIEWER = "viewer"  # reads what the project has, and asks its deployed models
    MEMBER = "member"  # makes, changes and deletes jobs, files and models of the project
    ADMIN = "admin"  # decides over the project's keys and members, and reads its audit log
    OPERATOR = "operator"  # decides over all projects and their quotas; a role of keys, never of members

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    def covers(self, other: "Role") -> bool:
        """Whether it may do all that `other` may."""
        return self.rank >= other.rank


MemberRole = Literal[Role.VIEWER, Role.MEMBER, Role.ADMIN]
