//! The habits that a machine can check: file heads, the order of modules, where stdout is written, sizes.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The modules of the library in the order of a call's path, as `src/lib.rs` lists them.
fn modules() -> Vec<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let name = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    };
    lib.lines().filter_map(name).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(dir), &mut found);
    found.sort();
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// `gate` for `src/gate.rs` and for `src/gate/permit.rs`.
fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    relative.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

#[test]
fn every_file_says_at_its_top_what_it_is() {
    for (path, text) in sources("src").into_iter().chain(sources("tests/it")).chain(sources("benches")) {
        assert!(text.starts_with("//!") || text.starts_with("#!"), "{} begins with `//!`", path.display());
    }
}

#[test]
fn a_module_uses_only_modules_above_it() {
    let order = modules();
    let place = |name: &str| order.iter().position(|module| module == name);
    for (path, text) in sources("src") {
        let module = module_of(&path);
        if path.ends_with("main.rs") || path.ends_with("lib.rs") || path.to_string_lossy().contains("tests") {
            continue;
        }
        let own = place(&module).unwrap_or_else(|| panic!("{module} is in lib.rs"));
        let code = text.split("#[cfg(test)]").next().unwrap();
        // `use crate::{a, b::c}` and `crate::a::…` alike: every name behind `crate::`, and those in its braces.
        for used in names_behind_crate(code) {
            let Some(used_place) = place(&used) else { continue };
            assert!(used_place <= own, "{} uses {used}, which is below {module}", path.display());
        }
    }
}

/// The first parts of all paths that begin with `crate`.
fn names_behind_crate(code: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut expects = true;
            for (at, c) in list.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => expects = true,
                    c if depth == 1 && expects && is_name(c) => {
                        names.push(list[at..].chars().take_while(|&c| is_name(c)).collect());
                        expects = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            names.push(rest.chars().take_while(|&c| is_name(c)).collect());
        }
    }
    names
}

#[test]
fn names_behind_crate_are_found_in_lists_too() {
    let code = "use crate::{\n a::{B, c},\n d,\n};\nlet x = crate::e::f();";
    assert_eq!(names_behind_crate(code), ["a", "d", "e"]);
}

#[test]
fn words_never_wait_and_never_touch_the_world() {
    const WORDS: [&str; 6] = ["sanitize", "jsonrpc", "mcp", "policy", "view", "digest"];
    for (path, text) in sources("src") {
        let name = path.to_string_lossy().into_owned();
        // Policies have to be read from somewhere: one file does it.
        if !WORDS.contains(&&*module_of(&path)) || name.ends_with("policy/files.rs") || name.contains("tests")
        {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap();
        for forbidden in
            [".await", "std::fs", "std::net", "SystemTime", "Instant::now", "Timestamp::now", "tokio::net"]
        {
            assert!(!code.contains(forbidden), "{name} has {forbidden}");
        }
    }
}

#[test]
fn no_file_grows_past_what_one_reads_at_once() {
    for (path, text) in sources("src") {
        let lines = text.lines().count();
        let is_tests = path.to_string_lossy().contains("tests");
        assert!(is_tests || lines <= 800, "{} has {lines} lines: is it one thing?", path.display());
    }
}

#[test]
fn only_the_gate_makes_a_permitted_frame() {
    for (path, text) in sources("src") {
        if text.contains("Permitted::new(") {
            assert_eq!(module_of(&path), "gate", "{} makes a permitted frame", path.display());
        }
    }
}
