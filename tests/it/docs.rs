//! The documentation does what it says: its commands run, its links lead somewhere, its settings parse, its policies load, and
//! what it names exists.
//!
//! A block marked `sh` is run from the project's directory by `sh -e`, with the program on the PATH and a home of its own, and has
//! to succeed. One marked `sh not-run` needs the network, an agent or a person, and says so by that.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use holdshort::{
    channels::settings,
    config::Config,
    hold::State,
    policy::{Policy, Source},
};

use crate::support::program::Home;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All pages: those of the root, of `docs` and of the examples.
fn pages() -> Vec<(PathBuf, String)> {
    let mut dirs = vec![root(), root().join("docs")];
    dirs.extend(fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path()));
    let mut pages: Vec<_> = dirs
        .iter()
        .flat_map(|dir| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
        .collect();
    pages.sort();
    assert!(pages.len() >= 10, "the pages are found");
    pages
}

/// A fenced block: what stands behind the fence, its text, and where it begins.
struct Block {
    place: String,
    info: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (path, page) in pages() {
        let mut open: Option<Block> = None;
        for (number, line) in (1..).zip(page.lines()) {
            let fence = line.trim_start().strip_prefix("```");
            match (fence, open.take()) {
                (Some(info), None) => {
                    let place = format!("{}:{number}", path.strip_prefix(root()).unwrap().display());
                    open = Some(Block { place, info: info.to_owned(), text: String::new() });
                }
                (Some(_), Some(block)) => blocks.push(block),
                (None, Some(mut block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block has no end", path.display());
    }
    blocks
}

fn blocks_of(info: &str) -> Vec<Block> {
    let found: Vec<_> = blocks().into_iter().filter(|block| block.info == info).collect();
    assert!(!found.is_empty(), "there is a block marked `{info}`");
    found
}

/// A shell with the program on its PATH, in the project's directory.
fn shell(home: &Home, script: &str) -> Command {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_holdshort"));
    let mut path = program.parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(root()).stdin(Stdio::null());
    command.env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path()).env("PATH", path);
    for variable in ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "HOLDSHORT_STORE", "HOLDSHORT_LOG"] {
        command.env_remove(variable);
    }
    command
}

#[test]
fn every_block_is_of_a_kind_that_is_looked_at() {
    const KINDS: [&str; 10] = [
        "sh",
        "sh not-run",
        "json",
        "toml",
        "yaml",
        "yaml cases",
        "yaml desk",
        "text",
        "text demo --reject",
        "yaml serve",
    ];
    for block in blocks() {
        assert!(KINDS.contains(&&*block.info), "{}: `{}`", block.place, block.info);
    }
}

#[test]
fn every_command_that_can_run_here_runs() {
    for block in blocks_of("sh") {
        let home = Home::new();
        let output = shell(&home, &block.text).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", block.place);
    }
}

#[test]
fn commands_that_are_not_run_are_known_ones() {
    let known = shell(&Home::new(), "holdshort help").output().unwrap();
    let known = String::from_utf8(known.stdout).unwrap();
    for block in blocks_of("sh not-run") {
        for line in block.text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("holdshort"), Some(command)) => {
                    assert!(known.contains(&format!("\n  {command} ")), "{}: {line}", block.place);
                }
                (Some("cargo"), Some("run" | "install" | "check" | "test" | "bench")) | (None, _) => {}
                (Some(script), _) => assert!(root().join(script).is_file(), "{}: {line}", block.place),
            }
        }
    }
}

#[test]
fn settings_and_answers_parse() {
    for block in blocks_of("json") {
        let lines: Vec<&str> = match serde_json::from_str::<serde_json::Value>(&block.text) {
            Ok(_) => continue,
            // Messages stand on lines of their own.
            Err(_) => block.text.lines().collect(),
        };
        for line in lines {
            let parsed = serde_json::from_str::<serde_json::Value>(line);
            assert!(parsed.is_ok(), "{}: {}", block.place, parsed.unwrap_err());
        }
    }
    for block in blocks_of("toml") {
        // The few forms that settings use: a table, and keys with a JSON value.
        let mut key = String::new();
        for line in block.text.lines().filter(|line| !line.is_empty() && !line.starts_with('[')) {
            key.push_str(line);
            let (_, value) = key.split_once(" = ").unwrap_or_else(|| panic!("{}: {key}", block.place));
            if serde_json::from_str::<serde_json::Value>(value).is_ok() {
                key.clear();
            }
        }
        assert!(key.is_empty(), "{}: {key}", block.place);
    }
}

/// What the settings start: every `run` of theirs has options that exist, and `--` before a command.
#[test]
fn settings_start_the_program_as_it_can_be_started() {
    let mut runs = 0;
    for block in blocks_of("json").into_iter().chain(blocks_of("toml")) {
        let Some((_, rest)) = block.text.split_once("[\"run\"") else { continue };
        let list = format!("[\"run\"{}]", rest.split_once(']').unwrap().0);
        let words: Vec<String> = serde_json::from_str(&list).unwrap();
        let dashes = words.iter().position(|word| word == "--").unwrap_or(words.len());
        let has_url = words.iter().any(|word| word == "--url");
        assert!(has_url || words.len() > dashes + 1, "{}: there is a command or a URL", block.place);
        for option in words[1..dashes].iter().step_by(2) {
            const OPTIONS: [&str; 6] = ["--policy", "--server", "--store", "--url", "--header", "--roots"];
            assert!(OPTIONS.contains(&&**option), "{}: {option}", block.place);
        }
        let policy = words.iter().position(|word| word == "--policy").map(|at| words[at + 1].clone());
        if let Some(policy) = policy.filter(|path| path.starts_with("examples/")) {
            assert!(root().join(&policy).is_file(), "{}: {policy}", block.place);
        }
        runs += 1;
    }
    assert!(runs >= 6, "the settings are found");
}

#[test]
fn every_policy_that_is_shown_loads_without_a_warning() {
    for block in blocks_of("yaml") {
        let policy = Policy::parse(vec![Source { name: block.place.clone(), text: block.text }]);
        let policy = policy.unwrap_or_else(|errors| panic!("{}", errors.render(false)));
        assert_eq!(policy.warnings().len(), 0, "{}: {:?}", block.place, policy.warnings());
    }
}

#[test]
fn every_configuration_that_is_shown_can_be_used() {
    for block in blocks_of("yaml serve") {
        let source = Source { name: block.place.clone(), text: block.text };
        if let Err(error) = Config::parse(source, &root()) {
            panic!("{error}");
        }
    }
}

#[test]
fn every_configuration_of_channels_that_is_shown_can_be_read() {
    let home = Home::new();
    for block in blocks_of("yaml desk") {
        let names = settings::names(&home.file("desk.yaml", &block.text));
        assert!(!names.unwrap_or_else(|error| panic!("{}: {error}", block.place)).is_empty());
    }
}

#[test]
fn every_case_that_is_shown_passes() {
    let page = "docs/policy.md";
    let first = blocks_of("yaml").into_iter().find(|block| block.place.starts_with(page)).unwrap();
    let home = Home::new();
    let policy = home.file("policy.yaml", &first.text);
    for block in blocks_of("yaml cases") {
        let cases = home.file("policy.test.yaml", &block.text);
        let output = home.holdshort([
            "policy".as_ref(),
            "test".as_ref(),
            policy.as_os_str(),
            "--cases".as_ref(),
            cases.as_os_str(),
        ]);
        assert!(output.status.success(), "{}: {}", block.place, String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_examples_and_their_cases_hold() {
    for example in ["billing", "filesystem", "fleet-postgres"] {
        let home = Home::new();
        let script = format!("holdshort policy test examples/{example}/policy.yaml");
        let output = shell(&home, &script).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && !said.contains("decides none"), "{said}");
    }
}

/// `text` with everything taken out that differs from one run to the next: ids, digests, times, users, widths.
fn without_chance(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let id = word.trim_matches(['(', ')', ':']);
        let is_id = matches!(id.len(), 7 | 26 | 64) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
        match word {
            _ if is_id && has_digit => "#".to_owned(),
            _ if word.starts_with("uid:") || word.starts_with("client-of:") => "#".to_owned(),
            _ if word.starts_with("2026-") || word.parse::<f64>().is_ok() => "#".to_owned(),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_demo_says_what_the_readme_shows() {
    let output = shell(&Home::new(), "holdshort demo --reject").output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut said = said.lines().map(without_chance);
    for block in blocks_of("text demo --reject") {
        let mut anywhere = true;
        for line in block.text.lines() {
            if line == "…" {
                anywhere = true;
                continue;
            }
            let line = without_chance(line);
            let found = if anywhere { said.find(|other| *other == line) } else { said.next() };
            assert_eq!(found.as_deref(), Some(&*line), "{}", block.place);
            anywhere = false;
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for (path, page) in pages() {
        for (at, _) in page.match_indices("](") {
            let target = page[at + 2..].split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            let file = target.split('#').next().unwrap();
            let linked = path.parent().unwrap().join(file);
            assert!(linked.exists(), "{}: {target}", path.display());
            links += 1;
        }
    }
    assert!(links > 10, "the links are found");
}

/// The texts of all files below `dir`.
fn texts(dir: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts_unless_installed(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(&path).unwrap());
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            // A transcript's name is its sentence.
            texts.push(format!("fn {}(", path.file_stem().unwrap().to_string_lossy()));
        }
    }
}

/// Packages that tests install are none of our sources.
fn texts_unless_installed(dir: &Path, all: &mut Vec<String>) {
    let name = dir.file_name().unwrap().to_string_lossy().into_owned();
    if name != "node_modules" && !name.starts_with("venv-") {
        texts(dir, all);
    }
}

#[test]
fn what_the_architecture_names_exists() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut sources = Vec::new();
    texts(&root().join("src"), &mut sources);
    texts(&root().join("tests"), &mut sources);
    let sources = sources.concat();
    let (mut functions, mut tests) = (0, 0);
    for name in page.split('`').skip(1).step_by(2) {
        let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let is_sentence = is_name(name) && name.matches('_').count() >= 3;
        if let Some((of, function)) = name.split_once("::")
            && is_name(function)
            && function.starts_with(|first: char| first.is_ascii_lowercase())
            && of.starts_with(|first: char| first.is_ascii_uppercase())
        {
            assert!(sources.contains(&format!("fn {function}")), "`{name}` exists");
            functions += 1;
        } else if is_sentence {
            assert!(sources.contains(&format!("fn {name}(")), "the test `{name}` exists");
            tests += 1;
        }
    }
    assert!(functions > 20 && tests > 20, "{functions} functions and {tests} tests are named");
}

#[test]
fn the_shape_of_a_hold_is_the_one_that_is_shown() {
    let page = fs::read_to_string(root().join("docs/cli.md")).unwrap();
    let shown = blocks_of("json").into_iter().find(|block| block.place.starts_with("docs/cli.md")).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown.text).unwrap();
    let view: holdshort::control::api::HoldView = serde_json::from_value(shown.clone()).unwrap();
    let written = serde_json::to_value(&view).unwrap();
    assert_eq!(written, shown, "no member is missing and none is too many");
    for state in State::ALL.map(State::word) {
        assert!(page.contains(&format!("`{state}`")), "{state}");
    }
}
