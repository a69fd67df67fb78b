//! The modules of a crate use each other without going in circles, so that each can be read and understood
//! on top of what lies below it. Only inner modules may look back: at those that they are in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::files::{root, sources};

/// A module's path within its crate: `["http", "events"]`; the crate's root is empty.
type Module = Vec<String>;

/// Where in its crate the file of a module is.
fn module(file: &Path) -> Module {
    let mut parts: Module = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    parts.pop_if(|last| *last == "lib" || *last == "mod");
    parts
}

/// The code alone: no comments, no texts, and not the tests at the end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next();
    let lines = text.unwrap_or_default().lines();
    lines
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The paths of a `use`, written out: `a::{b, c::{d, e}}` is `a::b`, `a::c::d`, `a::c::e`.
fn written_out(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.trim().to_owned()];
    };
    let inside = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let mut depth = 0_usize;
    let branches = inside.split(|letter| {
        depth = match letter {
            '{' => depth + 1,
            '}' => depth.saturating_sub(1),
            _ => depth,
        };
        letter == ',' && depth == 0
    });
    branches
        .filter(|branch| !branch.trim().is_empty())
        .flat_map(written_out)
        .map(|path| format!("{}{path}", before.trim()))
        .collect()
}

/// All paths that some code names.
fn paths(code: &str) -> BTreeSet<String> {
    let trees = code.split("use ").skip(1);
    let trees = trees.map(|part| part.split(';').next().unwrap_or_default());
    let joined = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = code.split(|letter| !joined(letter)).map(str::to_owned);
    let all = trees.flat_map(written_out).chain(words);
    all.filter(|path| path.contains("::")).collect()
}

/// What a path in `here` leads to: the innermost of the crate's modules on it. The root of the crate is
/// its face, and leads nowhere.
fn target(path: &str, here: &Module, modules: &BTreeMap<Module, String>) -> Option<Module> {
    let mut full = here.clone();
    for (at, part) in path.split("::").enumerate() {
        match part {
            "crate" => full.clear(),
            "super" => drop(full.pop()),
            "self" => {}
            name => {
                full.push(name.to_owned());
                // The path of another crate, or of a type.
                let is_known = at > 0 || modules.contains_key(&full);
                is_known.then_some(())?;
            }
        }
    }
    while !full.is_empty() && !modules.contains_key(&full) {
        full.pop();
    }
    (!full.is_empty()).then_some(full)
}

/// Which module uses which others.
fn uses(modules: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let of = |here: &Module, text: &String| {
        let paths = paths(&code(text));
        let targets = paths.iter().filter_map(|path| target(path, here, modules));
        // Those around it, and itself.
        targets.filter(|other| !here.starts_with(other)).collect()
    };
    let modules = modules.iter();
    modules
        .map(|(here, text)| (here.clone(), of(here, text)))
        .collect()
}

/// A way from `from` back to `from`.
fn circle(from: &Module, uses: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    let mut before: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut open = vec![from];
    while let Some(here) = open.pop() {
        for next in &uses[here] {
            if next == from {
                let mut way = vec![from.clone(), here.clone()];
                let mut step = here;
                while step != from {
                    step = before[step];
                    way.push(step.clone());
                }
                way.reverse();
                return Some(way);
            }
            if !before.contains_key(next) {
                before.insert(next, here);
                open.push(next);
            }
        }
    }
    None
}

/// The modules of each crate, by the folder of its sources.
fn crates() -> BTreeMap<PathBuf, BTreeMap<Module, String>> {
    let mut crates: BTreeMap<PathBuf, BTreeMap<Module, String>> = BTreeMap::new();
    for (path, text) in sources(&["rs"]) {
        let source = path.ancestors().find(|folder| folder.ends_with("src"));
        let Some(source) = source else { continue };
        assert!(
            source.with_file_name("Cargo.toml").exists(),
            "{source:?} belongs to no crate"
        );
        let inner = path.strip_prefix(source).expect("it is below");
        let is_test = inner
            .iter()
            .any(|part| part == "tests" || part == "tests.rs");
        if !is_test {
            let modules = crates.entry(source.to_owned()).or_default();
            modules.insert(module(inner), text);
        }
    }
    crates
}

#[test]
fn modules_use_each_other_without_going_in_circles() {
    let crates = crates();
    assert!(crates.contains_key(&root().join("broker/src")));
    let circles: Vec<_> = crates
        .iter()
        .filter_map(|(source, modules)| {
            let uses = uses(modules);
            let way = modules.keys().find_map(|from| circle(from, &uses))?;
            let way: Vec<_> = way.iter().map(|module| module.join("::")).collect();
            let source = source.strip_prefix(root()).unwrap_or(source);
            Some(format!("{}: {}", source.display(), way.join(" → ")))
        })
        .collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn a_circle_is_found_and_a_parent_with_its_child_is_none() {
    let modules = |files: &[(&str, &str)]| -> BTreeMap<Module, String> {
        let files = files.iter();
        files
            .map(|(file, text)| (module(Path::new(file)), (*text).to_owned()))
            .collect()
    };
    let good = modules(&[
        ("lib.rs", "mod a; mod b; pub use a::A; use other::b::B;"),
        (
            "a.rs",
            "mod inner; use inner::I; use crate::b::{B, other::{C as D}}; // crate::c",
        ),
        ("a/inner.rs", "use super::A; fn f() { crate::b::g() }"),
        (
            "b.rs",
            "use crate::A;\n#[cfg(test)]\nmod tests { use crate::a::A; }",
        ),
    ]);
    let graph = uses(&good);
    assert_eq!(graph[&module(Path::new("a.rs"))].len(), 2);
    assert!(good.keys().all(|from| circle(from, &graph).is_none()));

    let bad = modules(&[
        ("a.rs", "use crate::{b::B, x};"),
        ("b.rs", "fn f() { crate::c::g() }"),
        ("c.rs", "mod inner; pub use inner::g;"),
        ("c/inner.rs", "use super::super::a::{A};"),
    ]);
    let way = circle(&module(Path::new("a.rs")), &uses(&bad));
    let way: Vec<_> = way.iter().flatten().map(|part| part.join("::")).collect();
    assert_eq!(way, ["a", "b", "c", "c::inner", "a"]);
}
