"""A PostgreSQL server of the tests' own, which they start, stop and start again."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from attrs import frozen


@final
@frozen
class PostgreSQL:
    """A server.

    Attributes:
        programs: where its programs are.
        directory: where its files are.
        port: where it listens, on loopback.
        user: who it runs as; None is whoever runs the tests.
    """

    programs: Path
    directory: Path
    port: int
    user: str | None

    def new_database(self) -> str:
        """Make a database and return its address."""
        import psycopg

        name, place = f"copl_{secrets.token_hex(8)}", f"copl@127.0.0.1:{self.port}"
        with psycopg.connect(f"postgresql://{place}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://{place}/{name}"

    @staticmethod
    def binaries() -> Path | None:
        """Return where a server's programs are installed."""
        there = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        on_path = shutil.which("initdb")
        return there[-1].parent if there else Path(on_path).parent if on_path else None

    @classmethod
    @contextmanager
    def running(cls, programs: Path) -> Iterator[PostgreSQL]:
        """Make a server and start it; it is stopped and removed in the end."""
        user = None
        if os.geteuid() == 0:  # the server does not run as root
            try:
                user = pwd.getpwnam("postgres").pw_name
            except KeyError:
                user = "nobody"
        directory = Path(tempfile.mkdtemp(prefix="copl-pg-"))
        if user is not None:
            shutil.chown(directory, user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = cls(programs, directory, port, user)
        try:
            server._call("initdb", "-U", "copl", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
            server.start()
            try:
                yield server
            finally:
                server.crash()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def start(self) -> None:
        """Start it, after a crash with what was committed."""
        options = (
            f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories={self.directory} -c fsync=off"
        )
        self._call("pg_ctl", "-o", f"{options} -c fsync=off", "-l", str(self.directory / "log"), "-w", "start")

    def crash(self) -> None:
        """Stop it at once, whatever it does."""
        self._call("pg_ctl", "-m", "immediate", "-w", "stop")

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), "-D", str(self.directory / "data"), *arguments]
        done = subprocess.run(command, user=self.user, cwd=self.directory, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr + done.stdout
