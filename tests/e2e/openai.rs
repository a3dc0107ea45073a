//! The official OpenAI client against the host, as `tests/openai/test_openai_client.py` uses it.

use std::process::Command;

use crate::support::{config, root, with_host};

#[test]
fn the_official_openai_client_works() {
    let python = std::env::var("NEXTSTATE_PYTHON").unwrap_or_else(|_| "python3".into());
    let there = Command::new(&python)
        // The folder of this very test is importable as an empty `openai`: ask for the real one.
        .args(["-c", "import openai; openai.OpenAI"])
        .output();
    if !there.is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os("NEXTSTATE_REQUIRE_PYTHON").is_none(),
            "{python} has no `openai`: pip install -r tests/openai/requirements.txt"
        );
        eprintln!(
            "skipped: {python} has no `openai` (pip install -r tests/openai/requirements.txt)"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = with_host(config(folder.path()), |host| {
        Command::new(&python)
            .arg(root().join("tests/openai/test_openai_client.py"))
            .env("NEXTSTATE_URL", host.url())
            .env("NEXTSTATE_MODEL", host.trained_model())
            .output()
            .unwrap()
    });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains(" 0 failed"), "{said}");
}
