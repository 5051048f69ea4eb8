//! The unit for other distributions and the one that the NixOS module generates say the same.

use std::collections::BTreeMap;

use super::Finding;

/// The unit that packages install.
pub(super) const PACKAGED: &str = "etc/systemd/flux.service";
/// The unit of the NixOS module, as `nix/old/units` wrote it.
pub(super) const GENERATED: &str = "vm-tests/units/flux.service";

/// What only NixOS's unit has, where the module knows that nobody shares the instance: each of these keeps programs with
/// set-user-id from working, which jobs on other systems may need.
const HARDENING: &[&str] = &[
    "Service.LockPersonality",
    "Service.NoNewPrivileges",
    "Service.ProtectClock",
    "Service.ProtectKernelLogs",
    "Service.ProtectKernelModules",
    "Service.RestrictSUIDSGID",
];

/// What the systems do in ways of their own: NixOS gives services their environment, and makes the links of `[Install]`.
const OWN: &[&str] = &["Service.Environment", "Install.WantedBy"];

/// Lists in which the order says nothing.
const SETS: &[&str] = &["Unit.After", "Unit.Wants"];

/// What a directive says, in a form that does not depend on how it is written, and where it stands.
type Directives = BTreeMap<String, (usize, String)>;

/// The directives of a unit by `Section.Key`; those that are there several times are joined.
fn directives(text: &str) -> Directives {
    let mut found = Directives::new();
    let mut section = "";
    let mut lines = text.lines().enumerate();
    while let Some((i, line)) = lines.next() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=')
            && !line.starts_with(['#', ';'])
        {
            let mut value = value.to_owned();
            while value.ends_with('\\') {
                value.pop();
                value.push_str(lines.next().map_or("", |(_, more)| more.trim()));
            }
            let name = format!("{section}.{key}");
            let value = plain(&name, &value);
            found
                .entry(name)
                .and_modify(|(_, before)| *before = format!("{before} {value}"))
                .or_insert((i + 1, value));
        }
    }
    found
}

/// A value without what is a matter of taste or place.
fn plain(name: &str, value: &str) -> String {
    let mut words: Vec<&str> = value
        .split_whitespace()
        .map(|word| word.trim_matches('\''))
        .collect();
    if name.starts_with("Service.Exec") {
        let (marks, program) = words[0].split_at(words[0].find('/').unwrap_or(0));
        let program = program.rsplit('/').next().unwrap_or(program);
        words[1..].sort_unstable();
        return format!("{marks}{program} {}", words[1..].join(" "));
    }
    if SETS.contains(&name) {
        words.sort_unstable();
    }
    match words.as_slice() {
        ["yes" | "true" | "on"] => "yes".to_owned(),
        words => words.join(" "),
    }
}

/// Compare them.
pub(super) fn check(packaged: &str, generated: &str) -> Vec<Finding> {
    let todo = "change both (nix/module/units.nix, then nix/old/units), or say why not in xtask/src/tidy/units.rs";
    let (packaged, generated) = (directives(packaged), directives(generated));
    let mut findings = Vec::new();
    for (name, (line, value)) in &packaged {
        let what = match generated.get(name) {
            Some((_, other)) if other == value => continue,
            Some((_, other)) => format!("{name} is `{value}`, and `{other}` in {GENERATED}"),
            None if OWN.contains(&name.as_str()) => continue,
            None => format!("{name} is not in {GENERATED}"),
        };
        findings.push(Finding::error(PACKAGED, *line, what, todo));
    }
    for (name, (line, _)) in &generated {
        let own = OWN.iter().chain(HARDENING).any(|own| own == name);
        if !packaged.contains_key(name) && !own {
            let what = format!("{name} is not in {PACKAGED}");
            findings.push(Finding::error(GENERATED, *line, what, todo));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;

    const OURS: &str = "\
# What it is.
[Unit]
After=a.target b.service
[Service]
ExecStart=/usr/bin/flux broker \\
    -Sb=1 \\
    -Sa=2
Delegate=yes
Restart=always
[Install]
WantedBy=multi-user.target
";
    const THEIRS: &str = "\
[Unit]
After=b.service a.target

[Service]
Environment=\"PATH=/x\"
Delegate=true
ExecStart='/nix/store/0-ferroflux/bin/flux' 'broker' '-Sa=2' '-Sb=1'
LockPersonality=true
Restart=always
";

    fn found(ours: &str, theirs: &str) -> Vec<String> {
        let findings = check(ours, theirs);
        findings.iter().map(|f| f.what.clone()).collect()
    }

    #[test]
    fn the_same_in_other_words_is_the_same() {
        assert!(found(OURS, THEIRS).is_empty());
    }

    #[test]
    fn another_value_is_found() {
        let theirs = THEIRS.replace("-Sa=2", "-Sa=3");
        let want = "Service.ExecStart is `flux -Sa=2 -Sb=1 broker`, and `flux -Sa=3 -Sb=1 broker` in vm-tests/units/flux.service";
        assert_eq!(found(OURS, &theirs), [want]);
    }

    #[test]
    fn what_one_of_them_lacks_is_found() {
        let less = THEIRS.replace("Restart=always\n", "");
        let want = "Service.Restart is not in vm-tests/units/flux.service";
        assert_eq!(found(OURS, &less), [want]);
        let more = format!("{THEIRS}Nice=3\n");
        let want = "Service.Nice is not in etc/systemd/flux.service";
        assert_eq!(found(OURS, &more), [want]);
    }
}
