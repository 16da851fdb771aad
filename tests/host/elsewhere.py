"""TEST EQUIPMENT: docker, podman and Slurm's programs, whose commands run where no guardian can see them.

`Elsewhere` is the daemon: it starts the commands itself, in sessions and with environments of their own, and they live
on when the program that asked for them is killed. The programs are one script under several names; it asks the daemon
over a socket, passes SIGTERM on, and prints what comes back.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLIENT = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(os.environ["ELSEWHERE"])
program = os.path.basename(sys.argv[0])
link.sendall(json.dumps({{"argv": [program, *sys.argv[1:]], "env": dict(os.environ)}}).encode() + b"\\n")
signal.signal(signal.SIGTERM, lambda *_: link.sendall(b"TERM\\n"))
for line in link.makefile("rb"):
    said = json.loads(line)
    if "exit" in said:
        os._exit(said["exit"])
    os.write(said["to"], said["data"].encode("latin-1"))
os._exit(125)
"""
PROGRAMS = ("docker", "podman", "srun", "squeue", "scancel")
VALUE_FLAGS = {"-N", "-n", "-w", "--nodelist"}  # of srun, written apart from their values


@dataclass
class Started:
    """A container, or a job step."""

    name: str
    argv: list[str]
    env: dict[str, str]
    labels: list[str]
    process: subprocess.Popen[bytes]


class Elsewhere:
    """The daemon behind the programs in `bin`."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.calls: list[list[str]] = []
        self.started: list[Started] = []
        self.image_env: dict[str, str] = {}
        """What every image sets by itself."""
        self.repo_digests: list[str] = []
        """What the registry calls the image that is here."""
        self.trouble: str | None = None
        """What every program answers with from now on, as its error."""
        self.socket = folder / "socket"
        self.bin.mkdir(parents=True)
        for program in PROGRAMS:
            (self.bin / program).write_text(CLIENT)
            (self.bin / program).chmod(0o755)

    def env(self, **more: str) -> dict[str, str]:
        """An environment in which the programs are found."""
        return {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "ELSEWHERE": str(self.socket), **more}

    def alive(self) -> list[Started]:
        return [each for each in self.started if each.process.poll() is None]

    def serve(self, argv: list[str], env: dict[str, str], reader: Any, writer: Any) -> None:
        """One call of a program."""
        self.calls.append(argv)

        def say(**message: Any) -> None:
            with suppress(OSError, ValueError):  # the program was killed; what it started lives on
                writer.write(json.dumps(message).encode() + b"\n")
                writer.flush()

        if self.trouble is not None:
            say(to=2, data=self.trouble)
            say(exit=125)
        elif argv[:2] in (["docker", "run"], ["podman", "run"]):
            self._run(argv[2:], env, reader, say)
        elif argv[0] == "srun":
            self._step(argv[1:], env, reader, say)
        else:
            answer, code = self._answer(argv)
            say(to=1 if code == 0 else 2, data=answer)
            say(exit=code)

    def _run(self, words: Sequence[str], env: dict[str, str], reader: Any, say: Any) -> None:
        options = [word for word in words if word.startswith("-")]
        n_options = next(place for place, word in enumerate(words) if not word.startswith("-"))
        # A container has a network of its own, of which one port is published on the loopback address.
        argv = ["127.0.0.1" if word == "0.0.0.0" else word for word in words[n_options + 1 :]]
        chosen = [option.removeprefix("--env=") for option in options if option.startswith("--env=")]
        labels = [option.removeprefix("--label=") for option in options if option.startswith("--label=")]
        (name,) = (option.removeprefix("--name=") for option in options if option.startswith("--name="))
        passed = {each: env[each] for each in chosen if each in env}
        self._start(name, argv, {**self.image_env, **passed}, labels, reader, say)

    def _step(self, words: list[str], env: dict[str, str], reader: Any, say: Any) -> None:
        place, name = 0, words[0]
        while words[place].startswith("-"):
            name = words[place].partition("=")[2] if words[place].startswith("--job-name=") else name
            place += 2 if words[place] in VALUE_FLAGS else 1
        # On another node there is the environment, but no process of it is in this machine's /proc with advisor's mark.
        there = {key: value for key, value in env.items() if not key.startswith("ADVISOR_")}
        self._start(name, words[place:], there, [], reader, say)

    def _start(self, name: str, argv: list[str], env: dict[str, str], labels: list[str], reader: Any, say: Any) -> None:
        process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.started.append(Started(name, argv, env, labels, process))

        def listen() -> None:
            with suppress(OSError, ValueError):  # the program is gone, or its call is over
                for _ in reader:
                    process.send_signal(signal.SIGTERM)

        threading.Thread(target=listen, daemon=True).start()
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 65536):
            say(to=1, data=data.decode("latin-1"))
        code = process.wait()
        process.stdout.close()
        say(exit=code if code >= 0 else 128 - code)

    def _answer(self, argv: list[str]) -> tuple[str, int]:
        program, verb, *_ = *argv, ""
        words = {*argv, *(word.partition("=")[2] for word in argv)}
        named = [each for each in self.alive() if each.name in words]
        if program in ("docker", "podman"):
            if verb == "rm" and named:
                named[0].process.kill()
            elif verb == "top" and named:
                return f"PID\n{named[0].process.pid}\n", 0
            elif verb == "ps":
                label = argv[3].removeprefix("--filter=label=")
                return "".join(f"{each.name}\n" for each in self.alive() if label in each.labels), 0
            elif verb == "image" and "RepoDigests" in argv[3] and argv[-1] == "here:1":
                return json.dumps(self.repo_digests), 0
            elif verb == "image":
                return ("sha256:1\n", 0) if argv[-1] == "here:1" else (f"Error: No such image: {argv[-1]}\n", 1)
            if not named:
                return f"Error response from daemon: No such container: {argv[-1]}\n", 1
        elif program == "squeue":
            return "".join(f"7.{self.started.index(each)}\n" for each in named), 0
        elif verb.startswith("--signal="):
            for step in argv[2:]:
                self.started[int(step.partition(".")[2])].process.kill()
        return "", 0  # scancel --name finds jobs alone, and there are only steps


@contextmanager
def elsewhere(folder: Path) -> Iterator[Elsewhere]:
    """The daemon while it serves; it ends what it started."""
    daemon = Elsewhere(folder)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked = json.loads(self.rfile.readline())
            daemon.serve(asked["argv"], asked["env"], self.rfile, self.wfile)

    with socketserver.ThreadingUnixStreamServer(str(daemon.socket), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield daemon
        finally:
            for each in daemon.alive():
                each.process.kill()
            server.shutdown()
            thread.join()
