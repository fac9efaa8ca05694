from tests.cli.conftest import client, control_plane

__all__ = ["client", "control_plane"]
