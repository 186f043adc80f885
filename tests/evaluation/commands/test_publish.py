"""A model is handed on with its card alone, and no token or text goes along."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from amnesis.cli.app import main

TOKEN = "hf_" + "x" * 34


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder as it is handed on, of a model that nobody loads."""
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    verdict = {"forgetting": "forgotten", "retention": "kept", "sentence": "It forgot."}
    document = {"schema": "amnesis.results/1", "after": {"forget/probability": 0.1},
                "verdict": verdict}  # fmt: skip
    (folder / "results.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "answers.parquet").write_bytes(b"texts that must be forgotten")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md", "training.log"):
        (folder / "model" / name).write_text(f"contents of {name}", encoding="utf-8")
    return folder


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as one commit needs."""

    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer({"id": "me/model", "private": self.server.private, "sha": "0" * 40,
                     "siblings": [], "modelId": "me/model"})  # fmt: skip

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid credentials"}, 401)
        elif self.path.endswith("/repos/create"):
            self.answer({"url": f"{self.server.url}/me/model"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self.answer({"files": [{"path": f["path"], "uploadMode": "regular",
                                    "shouldIgnore": False} for f in files]})  # fmt: skip
        else:
            self.answer({"success": True, "commitOid": "1" * 40,
                         "commitUrl": f"{self.server.url}/me/model/commit/{'1' * 40}",
                         "hookOutput": ""})  # fmt: skip

    def answer(self, document: Any, status: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.private = [], True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()


def published(hub: Any, run: Path, *words: str, token: str = TOKEN) -> Any:
    """Publish in a process of its own: the hub's client reads its settings when imported."""
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(run / "hub")}  # fmt: skip
    line = [sys.executable, "-m", "amnesis", "publish", str(run), "--repo", "me/model", *words]
    return subprocess.run(
        line, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120
    )


def test_model_and_card_go_in_one_commit_and_nothing_else(hub: Any, run: Path) -> None:
    done = published(hub, run, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["url"] == f"{hub.url}/me/model"
    assert said["left"] == ["training.log"]
    (created,) = [json.loads(body) for path, _, body in hub.asked if path.endswith("create")]
    assert created.get("private", created.get("visibility")) in (True, "private")
    (commit,) = [body for path, _, body in hub.asked if "/commit/" in path]
    entries = [json.loads(line) for line in commit.splitlines()]
    files = {
        entry["value"]["path"]: base64.b64decode(entry["value"]["content"]).decode()
        for entry in entries
        if entry["key"] == "file"
    }
    assert sorted(files) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert files["config.json"] == "contents of config.json"
    assert TOKEN not in done.stdout + done.stderr + commit


def test_what_the_hub_refuses_is_one_line_without_the_token(hub: Any, run: Path) -> None:
    wrong = "hf_" + "y" * 34
    done = published(hub, run, token=wrong)
    assert done.returncode == 2
    assert wrong not in done.stdout + done.stderr
    assert "me/model: not uploaded" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_private_parcel_does_not_go_where_everybody_sees_it(hub: Any, run: Path) -> None:
    hub.private = False
    done = published(hub, run)
    assert done.returncode == 2
    assert "for everybody to see" in done.stderr
    assert not [path for path, _, _ in hub.asked if "/commit/" in path]


def test_a_dry_run_lists_what_would_go_and_contacts_nobody(run: Path, capfd: Any) -> None:
    assert main(["publish", str(run), "--repo", "me/model", "--dry-run", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["url"] is None
    assert set(said["files"]) == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert main(["publish", str(run), "--repo", "me/model", "--dry-run"]) == 0
    out = capfd.readouterr().out
    assert "note: training.log is not uploaded: no part of a model" in out
    assert out.endswith("nothing was uploaded; it would go to me/model (private)\n")


@pytest.mark.parametrize(
    "name", ["answers.parquet", "rows.csv", "report.html", "deeper/forget.jsonl", "my-answers.txt"]
)
def test_a_folder_with_rows_or_answers_is_refused(run: Path, capfd: Any, name: str) -> None:
    path = run / "model" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("a text that must be forgotten", encoding="utf-8")
    assert main(["publish", str(run), "--repo", "me/model", "--dry-run"]) == 2
    assert f"{path}: may hold rows or answers" in capfd.readouterr().err


def test_a_link_is_refused_and_so_is_no_name_or_no_model(run: Path, capfd: Any) -> None:
    for repo in ("model", "a/b/c", "me/ model", "me/.."):
        assert main(["publish", str(run), "--repo", repo, "--dry-run"]) == 2
        assert "write user/name" in capfd.readouterr().err
    (run / "model" / "vocab.json").symlink_to(run / "answers.parquet")
    assert main(["publish", str(run), "--repo", "me/model", "--dry-run"]) == 2
    assert "is a link" in capfd.readouterr().err
    for path in (run / "model").iterdir():
        path.unlink()
    assert main(["publish", str(run), "--repo", "me/model", "--dry-run"]) == 2
    assert "holds no model" in capfd.readouterr().err


def test_a_model_that_remembers_is_handed_on_with_a_warning(run: Path, capfd: Any) -> None:
    document = json.loads((run / "results.json").read_text(encoding="utf-8"))
    document["verdict"] |= {"forgetting": "not_at_all", "sentence": "It forgot nothing."}
    (run / "results.json").write_text(json.dumps(document), encoding="utf-8")
    assert main(["publish", str(run), "--repo", "me/model", "--dry-run"]) == 0
    assert "warning: the verdict on this model will not recommend it: It forgot nothing." in (
        capfd.readouterr().out
    )
