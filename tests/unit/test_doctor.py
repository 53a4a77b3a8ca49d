"""The doctor names what is wrong, with a fix, and is quiet about the rest."""

import json

from phaseb import doctor


def test_each_finding_that_is_not_ok_says_what_to_do(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "LOOKS", tuple(look for look in doctor.LOOKS if look is not doctor.ray_starts))
    assert doctor.examine(as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert {f["name"] for f in found} >= {"versions", "CPUs", "memory", "storage", "network", "token"}
    assert all(f["fix"] for f in found if f["state"] != "ok")
    assert not any(f["fix"] for f in found if f["state"] == "ok")
    assert list(tmp_path.iterdir()) == []  # the write test cleans up


def test_it_sees_an_open_ray_a_readable_token_and_too_many_threads(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert doctor.exposure()[0].state == "warning"
    monkeypatch.delenv("RAY_AUTH_MODE")
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert doctor.exposure()[0].fix == f"chmod 600 {token}"
    assert "secret" not in str(doctor.exposure())
    token.chmod(0o600)
    assert doctor.exposure()[0].state == "ok"
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert [f.name for f in doctor.processors()] == ["CPUs", "threads"]


def test_a_wrong_ray_is_bad_and_gives_exit_code_4(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_version", lambda name: "2.9.0" if name == "ray" else "1.0")
    monkeypatch.setattr(doctor, "LOOKS", (doctor.versions,))
    assert doctor.examine() == 4
    assert "-> phaseb is made for Ray 2.60" in capsys.readouterr().out
