use super::*;
use crate::{
    environment::Environment,
    log::Level,
    plugins::{Task, tests::stack},
    template::TaskTag,
};
use serde_json::json;

/// A directory with initrc files, and a job to read them.
struct Bench {
    dir: tempfile::TempDir,
    stack: Rc<Stack>,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Bench {
            dir,
            stack: Rc::new(stack()),
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Reads `initrc.lua`.
    fn read(&self) -> Result<Rc<Reader>, Fatal> {
        let site = Site {
            initrc: Some(self.path("initrc.lua")),
            plugin_path: Some(self.path("plugins")),
        };
        read(&self.stack, site)
    }

    /// What the files have logged, or else the error, without the directory.
    fn told(&self) -> Vec<String> {
        let here = self.path("");
        let read = self.read().err().map(|e| e.message);
        let said = self.stack.job().said().into_iter().map(|r| r.message);
        said.chain(read)
            .map(|text| text.replace(&here, ""))
            .collect()
    }
}

fn run(script: &str) -> Vec<String> {
    Bench::new(&[("initrc.lua", script)]).told()
}

#[test]
fn the_job_is_seen() {
    let script = "local i = shell.info
        shell.log (i.rank .. ' ' .. i.size .. ' ' .. i.ntasks .. ' ' .. i.service)
        shell.log (i.jobid .. ' ' .. i.jobspec.tasks[1].command[2] .. ' ' .. i.R.version .. ' ' .. i.instance_owner)
        for _, r in ipairs {shell.rankinfo, shell.get_rankinfo (1)} do
            shell.log (r.id .. ' ' .. r.name .. ' ' .. r.broker_rank .. ' ' .. r.ntasks .. ' ' .. r.taskids
                       .. ' ' .. r.resources.ncores .. ' ' .. r.resources.cores .. ' ' .. tostring (r.resources.gpus))
        end";
    assert_eq!(
        run(script),
        [
            "0 2 4 1000-shell-f",
            "1234 -x 1 1000",
            "0 n0 3 2 0-1 2 0-1 nil",
            "1 n1 4 2 2-3 2 0-1 nil"
        ]
    );
}

#[test]
fn the_environment_is_read_and_changed() {
    let script = "shell.setenv ('A', 1)
        shell.setenv ('A', '2', false)
        shell.setenv ('B', 'b')
        shell.unsetenv ('B')
        shell.prepend_path ('PATH', '/opt')
        shell.prepend_path ('PATH', '/bin')
        shell.prepend_path ('NEW', '/new')
        shell.env_strip ('^FOO_', 'nothing')
        local names = {}
        for name, value in pairs (shell.getenv ()) do table.insert (names, name .. '=' .. value) end
        table.sort (names)
        shell.log (table.concat (names, ' '))
        shell.log (tostring (shell.getenv ('B')))";
    assert_eq!(run(script), ["A=1 NEW=/new PATH=/opt:/bin", "nil"]);
}

#[test]
fn options_are_read_and_set() {
    let bench = Bench::new(&[(
        "initrc.lua",
        "local o = shell.options
        o.list = {1, 'two', {three = 3}}
        o['cpu-affinity'] = o['cpu-affinity'] or 'per-task'
        o.gone = nil
        o.mpi = 'openmpi@5'
        shell.log (o.list[3].three .. o['cpu-affinity'] .. tostring (o.gone))
        shell.log (table.concat ({shell.getopt_with_version ('mpi')}, ','))
        shell.log (tostring (shell.getopt_with_version ('none')))
        coprocess.define { name = 'off', command = {'false'} }
        o.on = { output = 'mine' }
        coprocess.define { name = 'on', command = {'true'}, output = 'log' }
        assert (not pcall (function () o.bad = print end))",
    )]);
    bench.stack.job().set_option("gone", json!(1));
    assert_eq!(bench.told(), ["3per-tasknil", "openmpi,5", "nil"]);
    let info = bench.stack.job().info();
    let option = |path: &str| info.jobspec.shell_option(path).cloned();
    assert_eq!(option("list"), Some(json!([1, "two", {"three": 3}])));
    assert_eq!(option("gone"), None);
    assert_eq!(
        option("coprocess"),
        Some(json!({"on": {"command": ["true"], "output": "mine"}}))
    );
}

#[test]
fn files_are_read_from_files() {
    let bench = Bench::new(&[
        (
            "initrc.lua",
            "shell.log (shell.rcpath)
            shell.source_rcpath ('*')
            shell.source_rcpath_option ('mpi')
            source (shell.rcpath .. '/more/*.lua')
            source_if_exists ('/none')
            source ('/none*')
            source (shell.rcpath .. '/none')",
        ),
        ("lua.d/1.lua", "shell.log '1'"),
        ("lua.d/2.toml", "[environment]\nset = { T = \"t\" }"),
        ("lua.d/3.txt", "no Lua"),
        ("rc/4.lua", "shell.log ('4' .. shell.getenv 'T')"),
        ("rc/mpi/x.lua", "shell.log 'x'"),
        ("rc/mpi/x@2.lua", "shell.log 'x@2'"),
        ("rc/mpi/x@3.lua", "shell.log 'x@3'"),
        ("more/5.lua", "shell.log '5'"),
    ]);
    let job = bench.stack.job();
    job.set_option("mpi", json!("x@2"));
    job.change_env(|env| env.insert("FLUX_SHELL_RC_PATH".into(), bench.path("rc")));
    let mut told = bench.told();
    let error = told.pop().unwrap();
    assert_eq!(told[1..], ["1", "4t", "x", "x@2", "5"]);
    assert!(
        error.contains("initrc.lua:7: source ")
            && error.ends_with("none: No such file or directory"),
        "{error}"
    );
}

#[test]
fn errors_tell_file_line_and_what() {
    for (script, want) in [
        (
            "x = = 1",
            "initrc: initrc.lua:1: unexpected symbol near '='",
        ),
        (
            "\nnil_value.x = 1",
            "initrc: initrc.lua:2: attempt to index a nil value (global 'nil_value')",
        ),
        ("error ('own words')", "initrc: initrc.lua:1: own words"),
        (
            "shell.info = 1",
            "initrc: initrc.lua:1: shell.info cannot be set",
        ),
        (
            "plugin.nonsense = 1",
            "initrc: initrc.lua:1: plugin.nonsense cannot be set",
        ),
        (
            "plugin.searchpath = {}",
            "initrc: initrc.lua:1: plugin.searchpath must be a string",
        ),
        (
            "shell.verbose = 'x'",
            "initrc: initrc.lua:1: shell.verbose must be a number or a boolean",
        ),
        (
            "task.setenv ('A', 'b')",
            "initrc: initrc.lua:1: task is there in callbacks about a task only",
        ),
        (
            "shell.get_rankinfo (9)",
            "initrc: initrc.lua:1: there is no shell rank 9",
        ),
        (
            "\n\nplugin.load 'none.so'",
            "initrc: initrc.lua:3: plugin none.so: No such file or directory in plugins",
        ),
        (
            "plugin.load (1 == 1)",
            "initrc: initrc.lua:1: plugin.load takes the name of a file, or a table with file and conf",
        ),
        (
            "plugin.register {name='a'}",
            "initrc: initrc.lua:1: plugin.register: a has no table of handlers",
        ),
        (
            "plugin.register {name='a', handlers={}}",
            "initrc: initrc.lua:1: plugin.register: the handlers of a are no array",
        ),
        (
            "plugin.register {name='a', handlers={{topic='x'}}}",
            "initrc: initrc.lua:1: plugin.register: a handler needs a topic, which is a string, and fn, a function",
        ),
        (
            "coprocess.define {}",
            "initrc: initrc.lua:1: coprocess.define: a name is missing",
        ),
        ("shell.die ('enough')", "enough"),
        ("pcall (shell.die, 'for good')", "for good"),
    ] {
        assert_eq!(run(script), [want], "{script}");
    }
}

#[test]
fn plugins_are_registered_and_called() {
    let bench = Bench::new(&[(
        "initrc.lua",
        "local n = 0
        plugin.register { handlers = {
            { topic = 'shell.*', fn = function (topic) n = n + 1; shell.log (topic .. n) end },
        } }
        plugin.register { name = 'tasks', handlers = {
            { topic = 'task.init', fn = function ()
                local i = task.info
                task.setenv ('RANK', i.rank .. i.localid .. i.state .. tostring (i.pid))
                task.setenv ('RANK', 'x', false)
                task.unsetenv ('HOME')
                shell.log (task.getenv ('USER') .. tostring (task.getenv ('HOME')))
            end },
            { topic = 'task.exit', fn = function () shell.log (task.info.exitcode .. task.info.signaled) end },
            { topic = 'bad', fn = function () error ('oops') end },
            { topic = 'false', fn = function () return false end },
            { topic = 'true', fn = function () return true end },
        } }",
    )]);
    let _reader = bench.read().unwrap();
    let (stack, job) = (&bench.stack, bench.stack.job());
    let call = |topic: &str| {
        stack
            .call(topic, &mut Default::default())
            .map_err(|e| e.message)
    };
    call("shell.init").unwrap();
    call("shell.exit").unwrap();
    let env: Environment = [("USER", "me"), ("HOME", "/")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let mut task = Task {
        tag: TaskTag { rank: 2, index: 0 },
        argv: Vec::new(),
        env,
        pid: None,
        status: None,
    };
    job.enter(task);
    call("task.init").unwrap();
    task = job.leave();
    assert_eq!(task.env["RANK"], "20Initnil");
    assert!(!task.env.contains_key("HOME"));
    (task.pid, task.status) = (Some(7), Some(9));
    job.enter(task);
    call("task.exit").unwrap();
    job.leave();
    let said: Vec<String> = job.said().into_iter().map(|r| r.message).collect();
    assert_eq!(said, ["shell.init1", "shell.exit2", "menil", "1379"]);
    call("true").unwrap();
    assert_eq!(
        call("false").unwrap_err(),
        "false: plugin tasks: the callback returned false"
    );
    let oops = call("bad").unwrap_err();
    assert!(
        oops.starts_with("bad: plugin tasks: ") && oops.ends_with("initrc.lua:14: oops"),
        "{oops}"
    );
}

#[test]
fn a_signal_ends_a_callback_that_does_not_return() {
    let bench = Bench::new(&[(
        "initrc.lua",
        "plugin.register { name = 'endless', handlers = { { topic = 'x', fn = function ()
            while true do pcall (function () while true do end end) end
        end } } }",
    )]);
    let reader = bench.read().unwrap();
    reader.heed_signals().unwrap();
    // SAFETY: it only tells which thread this is.
    let here = unsafe { libc::pthread_self() };
    // The signal is seen whenever it comes once the callback has begun; until then it is sent again.
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let sender = std::thread::spawn(move || {
        let again = std::time::Duration::from_millis(1);
        while wait.recv_timeout(again) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // SAFETY: the thread waits for this one.
            assert_eq!(unsafe { libc::pthread_kill(here, libc::SIGTERM) }, 0);
        }
    });
    let e = bench.stack.call("x", &mut Default::default()).unwrap_err();
    drop(done);
    sender.join().unwrap();
    assert_eq!(e.message, "x: plugin endless: interrupted by SIGTERM");
}

#[test]
fn nothing_of_lua_is_made_where_no_file_is_in_lua() {
    let bench = Bench::new(&[(
        "initrc.toml",
        "[options]
        verbose = 1
        taken = 2
        [environment]
        unset = ['FOO_*']
        set = { A = 'a' }
        default = { A = 'b', C = 'c' }
        prepend = { PATH = '/opt' }",
    )]);
    let job = bench.stack.job();
    job.set_option("taken", json!(1));
    let site = Site {
        initrc: Some(bench.path("initrc.toml")),
        plugin_path: None,
    };
    let reader = read(&bench.stack, site).map_err(|e| e.message).unwrap();
    assert!(reader.lua.get().is_none());
    let pairs: Vec<String> = job.env().iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(pairs, ["A=a", "C=c", "PATH=/opt:/bin"]);
    let info = job.info();
    assert_eq!(
        info.jobspec.shell_options(),
        json!({"taken": 1, "verbose": 1}).as_object()
    );
}

#[test]
fn a_table_that_is_not_understood_is_an_error() {
    for (text, want) in [
        ("[env]", "unknown field `env`"),
        ("[environment]\nset = [1]", "line 2"),
        (
            "[[plugin]]\nfile = '/none.so'",
            "plugin /none.so: No such file",
        ),
    ] {
        let bench = Bench::new(&[("initrc.toml", text)]);
        bench
            .stack
            .job()
            .set_option("initrc", json!(bench.path("initrc.toml")));
        let e = read(&bench.stack, Site::default()).err().unwrap();
        assert!(
            e.message.contains("initrc.toml: ") && e.message.contains(want),
            "{}",
            e.message
        );
    }
}

#[test]
fn without_a_file_the_usual_is_done() {
    let bench = Bench::new(&[("user.lua", "shell.debug 'user'")]);
    let job = bench.stack.job();
    job.change_env(|env| env.insert("FLUX_JOB_TMPDIR".into(), "/tmp/job".into()));
    let reader = read(&bench.stack, Site::default())
        .map_err(|e| e.message)
        .unwrap();
    assert!(reader.lua.get().is_none());
    bench
        .stack
        .call("shell.init", &mut Default::default())
        .unwrap();
    assert_eq!(
        job.env()["OMPI_MCA_btl_vader_backing_directory"],
        "/tmp/job"
    );
    job.set_option("userrc", json!(bench.path("user.lua")));
    read(&bench.stack, Site::default())
        .map_err(|e| e.message)
        .unwrap();
    let said = job.said();
    assert_eq!(
        (said[0].level, said[0].message.as_str()),
        (Level::Debug, "user")
    );
    job.set_option("userrc", json!(7));
    let e = read(&bench.stack, Site::default()).err().unwrap();
    assert_eq!(
        e.message,
        "shell option userrc=7 is invalid: must be the name of a file"
    );
}

#[test]
fn personalities_of_mpi() {
    let bench = Bench::new(&[]);
    let job = bench.stack.job();
    job.set_option("mpi", json!("spectrum@10"));
    job.change_env(|env| env.insert("OMPI_MCA_x".into(), "x".into()));
    read(&bench.stack, Site::default())
        .map_err(|e| e.message)
        .unwrap();
    assert!(!job.env().contains_key("OMPI_MCA_x"));
    assert_eq!(job.env()["OMPI_MCA_btl"], "self");
    assert!(job.env()["LD_PRELOAD"].starts_with("/opt/ibm/spectrum_mpi/"));
    let bench = Bench::new(&[]);
    bench.stack.job().set_option("mpi", json!("none"));
    read(&bench.stack, Site::default())
        .map_err(|e| e.message)
        .unwrap();
    assert!(!bench.stack.handles("shell.init"));
}
