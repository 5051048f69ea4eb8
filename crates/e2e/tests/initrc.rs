//! What initrc files make of the shell.

use e2e::Site;

#[test]
fn scripts_change_tasks_and_are_called_for_their_life() {
    let site = Site::new();
    site.write(
        "rc.lua",
        "shell.setenv ('SITE', 'north')
        plugin.register { name = 'all', handlers = {
            { topic = '*', fn = function (topic)
                if topic:match '^task' then
                    local i = task.info
                    if topic == 'task.init' then task.setenv ('MINE', i.rank * 10) end
                    topic = topic .. ' ' .. i.state .. ' ' .. tostring (i.exitcode)
                end
                if topic ~= 'shell.log' then shell.log (topic) end
            end },
        } }",
    );
    let script =
        "flux run -N2 -n2 -o userrc=rc.lua sh -c 'echo $SITE $MINE; exit 3' >out 2>err || echo $?
        sort out
        grep '\\[0\\]: ' err | sed 's/.*: //' | grep -v task.exec
        grep -c 'task.exec Init' err";
    let out = site.script(2, script).success();
    let want = [
        "3",
        "north 0",
        "north 10",
        "shell.init",
        "shell.post-init",
        "task.init Init nil",
        "task.fork Running nil",
        "shell.start",
        "task.exit Exited 3",
        "shell.finish",
        "shell.tasks-complete",
        "shell.exit",
        "2",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn the_sites_file_decides_about_all() {
    let site = Site::new();
    for dir in ["site/lua.d", "rc"] {
        std::fs::create_dir_all(site.path().join(dir)).unwrap();
    }
    site.write(
        "site/initrc.lua",
        "shell.setenv ('WHO', 'site'); shell.source_rcpath ('*')",
    );
    site.write(
        "site/lua.d/a.toml",
        "[options]\noutput.limit = \"2K\"\n[environment]\nset = { TABLE = \"t\" }",
    );
    site.write("own.toml", "[environment]\nset = { WHO = \"own\" }");
    site.write("rc/b.lua", "shell.setenv ('MORE', 'yes')");
    let script = "flux run -o initrc=own.toml printenv WHO
        flux run printenv OMPI_MCA_btl_vader_backing_directory | grep -c jobtmp
        flux run -o mpi=none printenv OMPI_MCA_btl_vader_backing_directory || echo none
        flux setattr conf.shell_initrc $PWD/site/initrc.lua
        FLUX_SHELL_RC_PATH=$PWD/rc flux run printenv WHO TABLE MORE
        flux run -o initrc=/none true || echo refused";
    let out = site.script(1, script).success();
    assert_eq!(
        out.lines(),
        ["own", "1", "none", "site", "t", "yes", "refused"],
        "{out}"
    );
    assert!(
        out.stderr.contains("/none: No such file or directory"),
        "{out}"
    );
}

/// Each fault ends the job with an exception that tells it.
#[test]
fn faults_of_scripts_end_the_job() {
    let site = Site::new();
    site.write("syntax.lua", "\nx = = 1");
    site.write("die.lua", "shell.die ('not on this machine')");
    for (name, topic) in [
        ("init", "shell.init"),
        ("task", "task.init"),
        ("exec", "task.exec"),
        ("exit", "task.exit"),
    ] {
        let handler = format!("{{ topic = '{topic}', fn = function () error ('no {name}') end }}");
        let text = format!("plugin.register {{ name = 'faulty', handlers = {{ {handler} }} }}");
        site.write(&format!("{name}.lua"), &text);
    }
    let script = "for rc in syntax die init task exec exit; do
            id=$(flux submit -o userrc=$PWD/$rc.lua true)
            flux job attach $id >$rc.out 2>&1 && echo $rc was taken
            flux job wait-event $id exception >>$rc.out
        done
        cat *.out >&2; true";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), [""; 0], "{out}");
    for want in [
        "syntax.lua:2: unexpected symbol near '='",
        "not on this machine",
        "shell.init: plugin faulty: ",
        "init.lua:1: no init",
        "task.init: plugin faulty: ",
        "task.exec: plugin faulty: ",
        "exec.lua:1: no exec",
        "task.exit: plugin faulty: ",
    ] {
        assert!(out.stderr.contains(want), "{want}: {out}");
    }
}

/// Wherever a script is in a loop without an end, its job can be cancelled.
#[test]
fn endless_scripts_can_be_ended() {
    let site = Site::new();
    let endless = "while true do pcall (function () while true do end end) end";
    site.write(
        "now.lua",
        &format!("io.open ('gate', 'w'):write ('now\\n'):close ()\n{endless}"),
    );
    let callback =
        format!("function () io.open ('gate', 'w'):write ('later\\n'):close () {endless} end");
    let later = format!(
        "plugin.register {{ name = 'a', handlers = {{ {{ topic = 'shell.start', fn = {callback} }} }} }}"
    );
    site.write("later.lua", &later);
    let script = "mkfifo gate
        for rc in now later; do
            id=$(flux submit -o userrc=$PWD/$rc.lua sleep inf)
            read begun <gate
            flux cancel $id
            flux job wait-event $id clean >/dev/null && echo ended
        done";
    site.script(1, script)
        .success()
        .expect_stdout("ended\nended\n");
}
