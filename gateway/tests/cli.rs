//! The command line, against a real gateway: what each command says to people
//! and to programs, how it ends, and that no is no.

mod running;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixStream},
    },
    process::Stdio,
};

use serde_json::Value;

use crate::running::{LONG, Lines, Place, Running, Said, TWO_SERVICES, signal};

#[test]
fn services_and_circuits_are_listed_for_people_and_programs() {
    let running = Running::new();
    let table = running.brk(&["list"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("SERVICE"), "{table}");
    let port = running.programs.rsplit_once(':').unwrap().1;
    for (line, expected) in [
        (lines[1], ["orders", &format!("{}/orders", running.programs), "closed"]),
        (lines[2], ["payments", &format!("http://pay.example:{port}/"), "closed"]),
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!([words[0], words[1], words[3]], expected, "{table}");
    }
    let json = running.brk(&["list", "-o", "json"]).json();
    assert_eq!(json["services"][1]["name"], "payments");

    let table = running.brk(&["status"]).ok();
    assert!(table.starts_with("CIRCUIT"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    let json = running.brk(&["status", "-o", "json"]).json();
    assert_eq!(json["circuits"].as_array().unwrap().len(), 2);

    let one = running.brk(&["status", "orders"]).ok();
    for said in [
        "orders: Closed: no calls yet.",
        "generation: 0",
        "opens at 50% failed",
        "it was registered",
    ] {
        assert!(one.contains(said), "{said}: {one}");
    }
    let json = running.brk(&["status", "orders", "-o", "json"]).json();
    assert_eq!(json["circuit"]["id"], "orders");
    for arguments in [&["status", "nobody"][..], &["events", "nobody"], &["events", "-f", "nobody"]]
    {
        running.brk(arguments).fails(1, "no circuit is registered as \"nobody\"");
    }
    for text in [&table, &one] {
        assert!(
            !text.contains('\u{1b}') && text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }
}

#[test]
fn a_service_is_one_line_of_the_list_however_long_it_is() {
    let name = "x".repeat(64);
    let running = Place::new(&format!("[services.{name}]\nupstream = \"http://h/{name}\"")).start();
    let table = running.brk(&["list"]).ok();
    let line = table.lines().nth(1).unwrap();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(line.contains(&format!("/{name} ")) && line.ends_with(" closed"), "{table}");
}

#[test]
fn a_circuit_is_flipped_and_a_gate_sees_it() {
    let running = Running::new();
    let flip = |arguments: &[&str]| {
        let all: Vec<&str> = ["flip", "orders"].iter().chain(arguments).copied().collect();
        running.brk(&[all.as_slice(), &["--yes", "--reason", "a drill"]].concat())
    };
    let state = || {
        let circuit = running.get("api/v1/circuits/orders")["circuit"].take();
        let kind = circuit["override"]["kind"].as_str().unwrap_or("none").to_owned();
        (circuit["automatic_state"].as_str().unwrap().to_owned(), kind)
    };
    let is = |automatic: &str, held: &str| (automatic.to_owned(), held.to_owned());
    let check = |code| {
        let all = running.brk(&["status", "--check"]);
        assert_eq!(all.code, code, "{all:?}");
        assert_eq!(running.brk(&["status", "orders", "--check"]).code, code);
        assert_eq!(running.brk(&["status", "payments", "--check"]).code, 0);
        let json = running.brk(&["status", "--check", "-o", "json"]);
        let said: Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!((said["ok"].as_bool(), json.code), (Some(code == 0), code));
        all.out
    };
    assert_eq!(check(0), "");

    flip(&["half-open"]).fails(1, "only an open circuit can be sent probes");
    assert_eq!(state(), is("closed", "none"));
    let said = flip(&["open"]);
    assert!(said.err.contains("orders is closed"), "{said:?}");
    assert!(said.err.contains("it will open, and refuse every call"), "{said:?}");
    assert!(said.ok().starts_with("orders is open"));
    // Its wait may be over already, and it is for a probe to say so.
    assert!(check(4).contains("orders is open"));
    assert!(flip(&["half-open"]).ok().starts_with("orders is half-open"));
    assert_eq!(state(), is("half_open", "none"));
    assert!(check(4).contains("orders is half-open"));
    assert!(flip(&["closed"]).ok().starts_with("orders is closed"));
    assert_eq!(state(), is("closed", "none"));

    assert!(flip(&["force-open"]).ok().starts_with("orders is forced open"));
    let over = running.get("api/v1/circuits/orders")["circuit"]["override"].take();
    assert_eq!(over["reason"], "a drill");
    let left = over["expires_in_ms"].as_u64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "an hour unless said: {left}");
    assert!(check(4).contains("forced open"));
    flip(&["force-closed", "--for", "until-cleared"]).ok();
    let over = running.get("api/v1/circuits/orders")["circuit"]["override"].take();
    assert_eq!((&over["kind"], &over["expires_in_ms"]), (&"force_closed".into(), &Value::Null));
    check(0);
    let json = flip(&["observe", "--for", "30m", "-o", "json"]).json();
    assert_eq!(json["circuit"]["override"]["kind"], "observe_only");
    check(0);
    assert!(flip(&["auto"]).ok().starts_with("orders is closed"));
    assert_eq!(state(), is("closed", "none"));
    flip(&["auto"]).fails(1, "nobody holds orders");
}

#[test]
fn what_can_not_be_meant_ends_with_two_and_does_nothing() {
    let running = Running::new();
    let before = running.get("api/v1/events")["last_id"].clone();
    for (arguments, said) in [
        (&["flip", "orders", "open", "--yes"][..], "Say --reason"),
        (&["flip", "orders", "open", "--reason", "x"], "say --yes"),
        (
            &["flip", "orders", "open", "--yes", "--reason", "x", "--for", "1h"],
            "--for is for force-open",
        ),
        (
            &["flip", "orders", "force-open", "--yes", "--reason", "x", "--for", "soon"],
            "must be a time such as",
        ),
        (&["flip", "orders", "ajar", "--yes", "--reason", "x"], "[possible values: open"),
        (&["--admin", "gopher://x", "list"], "must be a URL such as http://127.0.0.1:9090"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["serve", "--log", "=="], "which is no filter"),
    ] {
        running.brk(arguments).fails(2, said);
    }
    assert_eq!(running.get("api/v1/events")["last_id"], before);
}

#[test]
fn a_stale_look_is_refused_with_what_has_changed_by_whom_when_and_why() {
    let running = Running::new();
    let flip = |to, reason, more: &[&str]| {
        running.brk(&[&["flip", "orders", to, "--yes", "--reason", reason], more].concat())
    };
    flip("force-open", "moving the disks", &[]).ok();
    let said = flip("closed", "it looks fine", &["--if-generation", "0"]);
    let said = said.fails(3, "orders has changed since it was looked at, and is forced open now");
    let since = running.get("api/v1/circuits/orders")["circuit"]["since"].take();
    let date = since.as_str().unwrap().split_once('T').unwrap().0;
    for text in [
        "operator asked for `override`: moving the disks",
        date,
        "its generation was 0 and is 1; nothing was changed",
    ] {
        assert!(said.err.contains(text), "{text}: {said:?}");
    }
    let circuit = running.get("api/v1/circuits/orders")["circuit"].take();
    assert_eq!(circuit["override"]["kind"], "force_open");
}

#[test]
fn on_a_terminal_it_asks_and_no_is_no() {
    let running = Running::new();
    let is_held = || running.get("api/v1/circuits/orders")["circuit"]["override"].is_object();
    for no in ["n\n", "\n", "nope\n", "\u{4}"] {
        let said = running.typed("flip orders force-open --reason x", no);
        assert_eq!(said.code, 6, "{no:?}: {said:?}");
        assert!(
            said.out.contains("it will be held open for 1h: every call is refused"),
            "{said:?}"
        );
        assert!(said.out.contains("Do it? [y/N]"), "{said:?}");
        assert!(said.out.contains("nothing was changed"), "{said:?}");
        assert!(!is_held(), "{no:?}");
    }
    let said = running.typed("flip orders force-open", "the disks are moved\ny\n");
    assert_eq!(said.code, 0, "{said:?}");
    let over = running.get("api/v1/circuits/orders")["circuit"]["override"].take();
    assert_eq!(over["reason"], "the disks are moved");
}

#[test]
fn events_are_shown_by_the_line_and_as_documents() {
    let running = Running::new();
    running.brk(&["flip", "orders", "open", "--yes", "--reason", "a drill"]).ok();
    let all = running.brk(&["events"]).ok();
    assert!(all.contains("orders: operator asked for `open`: a drill"), "{all}");
    assert!(all.contains("payments: it was registered"), "{all}");
    let some = running.brk(&["events", "payments"]).ok();
    assert_eq!(some.lines().count(), 1, "{some}");
    assert_eq!(running.brk(&["events", "-n", "1"]).ok().lines().count(), 1);
    for line in running.brk(&["events", "-o", "json"]).ok().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["sentence"].is_string(), "{line}");
    }
}

#[test]
fn who_follows_hears_what_happens_also_after_the_gateway_was_started_anew() {
    // The same address twice.
    let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let running = Place::at(&admin, TWO_SERVICES).start();
    let mut events = Lines::of(running.command(&["events", "-f", "orders"]));
    events.wait_for("orders: it was registered");
    let flip = ["flip", "orders", "force-open", "--yes", "--reason", "one"];
    running.brk(&flip).ok();
    events.wait_for("operator asked for `override`: one");
    running.signal("TERM");
    let (status, log, place) = running.end();
    assert!(status.success(), "{log}");
    events.wait_for("waiting for it");
    let running = place.start();
    events.wait_for("the gateway is back");
    running.brk(&["flip", "payments", "force-open", "--yes", "--reason", "not this one"]).ok();
    running.brk(&["flip", "orders", "auto", "--yes", "--reason", "two"]).ok();
    let mut told = Vec::new();
    loop {
        let line = events.wait_for("");
        let is_last = line.contains("operator asked for `clear_override`: two");
        told.push(line);
        if is_last {
            break;
        }
    }
    assert!(told.iter().any(|line| line.contains("started anew")), "{told:#?}");
    assert!(!told.iter().any(|line| line.contains("payments")), "{told:#?}");
    signal(&events.child, "INT");
}

#[test]
fn what_is_watched_is_plain_where_it_is_piped() {
    let running = Running::new();
    running.brk(&["flip", "orders", "force-open", "--yes", "--reason", "x"]).ok();
    let plain = running.brk(&["watch", "--frames", "2"]).ok();
    assert!(!plain.contains('\u{1b}'), "{plain}");
    assert_eq!(plain.matches("1 open, 0 half-open, 1 closed").count(), 2, "{plain}");
    assert!(plain.lines().all(|line| line.chars().count() <= 80), "{plain}");
    let place = |name: &str| plain.find(name).unwrap();
    assert!(place("orders") < place("payments"), "trouble comes first: {plain}");
    let coloured = running.brk(&["watch", "--frames", "1", "--color", "always"]).ok();
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    let json = running.brk(&["watch", "--frames", "1", "-o", "json"]).json();
    assert_eq!(json["event"], "snapshot");
    assert_eq!(json["data"]["circuits"][0]["id"], "orders");
}

#[test]
fn a_terminal_is_left_as_it_was() {
    const ENTER: &str = "\u{1b}[?1049h";
    const LEAVE: &str = "\u{1b}[?1049l";
    let running = Running::new();
    let said = running.typed("watch --frames 2", "");
    assert_eq!(said.code, 0, "{said:?}");
    // By Ctrl-C, which the terminal makes an interrupt of.
    let broken_off = running.typed_at("watch", "Ctrl-C ends", "\u{3}");
    assert_eq!(broken_off.code, 0, "{broken_off:?}");
    for said in [said, broken_off] {
        let (enter, leave) = (said.out.find(ENTER), said.out.rfind(LEAVE));
        assert!(enter.is_some() && enter < leave, "{said:?}");
        let rest = &said.out[leave.unwrap()..];
        assert!(!rest.contains("orders"), "{rest:?}");
        assert!(said.out.contains("\u{1b}[?25h"), "the cursor is shown again: {said:?}");
        assert!(said.out.contains("\u{1b}[?7h"), "lines wrap again: {said:?}");
    }
    let plain = running.typed("status --color never", "");
    assert!(!plain.out.contains('\u{1b}'), "{plain:?}");
    let coloured = running.typed("status", "");
    assert!(coloured.out.contains("\u{1b}["), "{coloured:?}");
}

#[test]
fn who_reads_no_further_is_no_error() {
    let running = Running::new();
    let mut events = running.command(&["watch"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(events.stdout.take());
    assert_eq!(events.wait().unwrap().code(), Some(0));
}

/// It was a panic once, before anything was done.
#[test]
fn what_is_said_beside_the_answer_need_not_be_heard() {
    let running = Running::new();
    for arguments in [
        &["flip", "orders", "force-open", "--yes", "--reason", "x"][..],
        &["add", "http://127.0.0.1:9", "--name", "cart"],
    ] {
        let (nobody, theirs) = UnixStream::pair().unwrap();
        drop(nobody);
        let mut command = running.command(arguments);
        let said = Said::of(command.stderr(OwnedFd::from(theirs)).output().unwrap());
        assert_ne!(said.ok(), "", "{arguments:?}");
    }
    let circuit = running.get("api/v1/circuits/orders")["circuit"].take();
    assert_eq!(circuit["override"]["kind"], "force_open");
    assert!(running.place.path("services.d/cart.toml").exists());
}

#[test]
fn the_files_are_read_again_and_what_is_wrong_is_said_with_its_line() {
    let running = Running::new();
    assert_eq!(running.brk(&["reload"]).ok(), "read, and no service has changed\n");
    let config = running.place.config();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\nupstraem = 1\n")).unwrap();
    let line = text.lines().count() + 2;
    let place = format!("brk.toml:{line}:");
    running
        .brk(&[
            "--token-file",
            running.place.path("state/operator.token").to_str().unwrap(),
            "reload",
        ])
        .fails(1, &place);
    // Where the gateway is stands there all the same, and it can be steered.
    running.brk(&["reload"]).fails(1, &place);
    let said = running.brk(&["status", "--check"]).fails(0, "the configuration is wrong");
    assert!(!said.err.contains("upstraem"), "{said:?}");
    running.brk(&["flip", "orders", "open", "--yes", "--reason", "x"]).ok();
    running.brk(&["token"]).ok();
    fs::write(&config, format!("{text}\n[")).unwrap();
    running.brk(&["list"]).fails(1, "--admin and --token-file");
    fs::write(&config, format!("{text}\nx = \"\u{1b}[2J\"\n\"\\u001b[2J\" = 1\n")).unwrap();
    let said = running.brk(&["check"]);
    assert!(said.code == 1 && !said.err.contains('\u{1b}'), "{said:?}");
    assert_eq!(running.get("api/v1/services")["services"].as_array().unwrap().len(), 2);
    fs::write(&config, &text).unwrap();
    let json = running.brk(&["reload", "-o", "json", "--reason", "mended"]).json();
    assert_eq!(json["added"], Value::Array(Vec::new()));
}

#[test]
fn the_page_s_address_has_the_token_where_no_server_sees_it() {
    let running = Running::new();
    let operator = running.place.token("operator");
    let viewer = running.place.token("viewer");
    let address = |token: &str| format!("{}/#token={token}", running.admin);
    assert_eq!(running.brk(&["dashboard"]).ok().trim(), address(&operator));
    assert_eq!(running.brk(&["dashboard", "--viewer"]).ok().trim(), address(&viewer));
    let json = running.brk(&["dashboard", "-o", "json"]).json();
    assert_eq!(json["url"], address(&operator));
    // A stand-in for what opens addresses.
    let bin = running.place.path("bin");
    let opened = running.place.path("opened");
    fs::create_dir(&bin).unwrap();
    let program = bin.join("xdg-open");
    fs::write(&program, format!("#!/bin/sh\nprintf %s \"$1\" > {}\n", opened.display())).unwrap();
    running::set_mode(&program, 0o755);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = running.command(&["dashboard", "--open"]);
    Said::of(command.env("PATH", path).output().unwrap()).ok();
    assert_eq!(fs::read_to_string(opened).unwrap(), address(&operator));

    assert_eq!(running.brk(&["token"]).ok().trim(), operator);
    let json = running.brk(&["token", "--viewer", "-o", "json"]).json();
    assert_eq!((json["role"].as_str(), json["token"].as_str()), (Some("viewer"), Some(&*viewer)));
    // A viewer may look, and not steer.
    let file = running.place.path("state/viewer.token");
    let file = file.to_str().unwrap();
    running.brk(&["--token-file", file, "list"]).ok();
    running
        .brk(&["--token-file", file, "flip", "orders", "open", "--yes", "--reason", "x"])
        .fails(1, "a viewer may look and not steer");
}

/// An address that is bound, so that nobody else gets it, and not listened on.
fn nobody() -> (socket2::Socket, std::net::SocketAddr) {
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap();
    (held, address)
}

#[test]
fn a_gateway_that_is_not_there_is_said_with_a_code_of_its_own() {
    let (_held, free) = nobody();
    let place = Place::at(&free.to_string(), TWO_SERVICES);
    let brk = |arguments: &[&str]| Said::of(place.command().args(arguments).output().unwrap());
    brk(&["list"]).fails(1, "`brk serve` and `brk token` make it");
    brk(&["token"]).ok();
    for arguments in [
        &["list"][..],
        &["status"],
        &["status", "--check"],
        &["events"],
        &["events", "-f"],
        &["watch"],
        &["reload"],
        &["flip", "orders", "open", "--yes", "--reason", "x"],
    ] {
        brk(arguments).fails(5, &format!("no gateway answers at http://{free}"));
    }
    let missing = place.path("none");
    let missing = missing.to_str().unwrap();
    brk(&["--token-file", missing, "list"]).fails(1, "can't be read");
}

#[test]
fn completions_and_the_page_of_the_manual_know_every_command() {
    let place = Place::new("");
    let brk = |arguments: &[&str]| Said::of(place.command().args(arguments).output().unwrap()).ok();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(brk(&["completions", shell]).contains("if-generation"), "{shell}");
    }
    let page = brk(&["man"]);
    let help = brk(&["--help"]);
    for command in [
        "serve",
        "check",
        "add",
        "rm",
        "list",
        "status",
        "flip",
        "events",
        "watch",
        "reload",
        "token",
        "dashboard",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        assert!(page.contains(&format!(".SH BRK {}", command.to_uppercase())), "{command}");
    }
    for text in [&help, &page] {
        assert!(text.contains("a checked circuit is not closed"), "the exit codes: {text}");
    }
}

#[test]
fn it_tells_systemd_and_ends_well_when_it_is_told_to() {
    for name in ["TERM", "INT"] {
        let place = Place::new(TWO_SERVICES);
        let path = place.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut command = place.command();
        let mut serve = Lines::of({
            command.arg("serve").env("NOTIFY_SOCKET", &path);
            command
        });
        let operators = serve.wait_for("operators: http://127.0.0.1:");
        assert!(!operators.contains("token="), "a token does not belong into a log: {operators}");
        let said = |socket: &UnixDatagram| {
            let mut text = [0; 64];
            let length = socket.recv(&mut text).unwrap();
            String::from_utf8(text[..length].to_vec()).unwrap()
        };
        assert_eq!(said(&socket), "READY=1");
        // An open stream holds nothing up.
        let admin = operators.split_whitespace().nth(1).unwrap();
        let mut watch = place.command();
        watch.args(["--admin", admin, "events", "-f"]);
        let mut watch = Lines::of(watch);
        watch.wait_for("it was registered");
        signal(&serve.child, name);
        assert_eq!(said(&socket), "STOPPING=1");
        assert_eq!(serve.child.wait().unwrap().code(), Some(0), "{name}");
        watch.wait_for("waiting for it");
    }
}

#[test]
fn a_removal_that_the_gateway_does_not_follow_says_both() {
    let running = Running::new();
    running.brk(&["add", "http://127.0.0.1:9", "--name", "cart", "--no-try"]).ok();
    fs::write(running.place.path("services.d/other.toml"), "nonsense").unwrap();
    let said = running.brk(&["rm", "cart", "--yes"]);
    let said = said.fails(1, "cart is removed, but the gateway has not said that it follows: ");
    assert!(said.err.contains("other.toml"), "{said:?}");
    assert!(!running.place.path("services.d/cart.toml").exists());
}

#[test]
fn what_is_not_known_of_the_gateway_is_not_said_of_it() {
    let running = Running::new();
    let add = |running: &Running, name, more: &[&str]| {
        let url = ["add", "http://127.0.0.1:9", "--no-try", "--name", name];
        running.brk(&[&url[..], more].concat())
    };
    let viewer = running.place.path("state/viewer.token");
    let said = add(&running, "a", &["--token-file", viewer.to_str().unwrap()]);
    said.fails(1, "a is added, but the gateway has not said that it follows: a viewer may look");
    assert!(running.place.path("services.d/a.toml").exists());

    let missing = running.place.path("none");
    let missing = missing.to_str().unwrap();
    let (_held, free) = nobody();
    let free = format!("http://{free}");
    for (name, more, why) in [
        ("b", ["--token-file", missing], format!("the token in {missing} can't be read")),
        ("c", ["--admin", &free], format!("no gateway answers at {free}")),
    ] {
        let said = add(&running, name, &more).ok();
        assert!(said.contains(&format!("It could not be told to a gateway: {why}")), "{said}");
        assert!(!said.contains("No gateway runs yet"), "{said}");
        let json = add(&running, name, &[&more[..], &["--replace", "-o", "json"]].concat()).json();
        assert_eq!(json["is_running"], Value::Null);
    }
    let place = Place::new("");
    let mut never = place.command();
    never.args(["add", "http://127.0.0.1:9", "--no-try"]);
    assert!(Said::of(never.output().unwrap()).ok().contains("No gateway runs yet; start it:"));
}

/// Each line that it could not write was a panic once: in whoever asked for a
/// reload, or in a worker, and that ended the gateway.
#[test]
fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let place = Place::new(TWO_SERVICES);
    let mut command = place.command();
    command.args(["serve", "-o", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut serve = command.spawn().unwrap();
    drop(serve.stderr.take());
    let mut line = String::new();
    BufReader::new(serve.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    let brk = |command: &str| {
        let admin = said["admin"].as_str().unwrap();
        Said::of(place.command().args(["--admin", admin, command]).output().unwrap())
    };
    let first = brk("reload");
    place.add("[services.third]\nupstream = \"http://127.0.0.1:9\"\n");
    // By itself, perhaps, before it is asked to.
    let all = [first, brk("reload"), brk("list")];
    signal(&serve, "TERM");
    let ended = serve.wait().unwrap();
    let [first, second, list] = all.map(Said::ok);
    assert!(first.starts_with("read") && !second.is_empty() && list.contains("third"), "{list}");
    assert_eq!(ended.code(), Some(0));
}

/// Two used to write over what the other had saved.
#[test]
fn a_second_gateway_leaves_the_state_of_the_first_alone() {
    let running = Running::new();
    let state = running.place.path("state/state.json");
    let second = running.place.path("second.toml");
    let directory = running.place.path("state");
    let text = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    fs::write(&second, format!("{text}state = {directory:?}\n")).unwrap();
    running.brk(&["flip", "orders", "force-open", "--yes", "--reason", "rebuild"]).ok();
    let is_saved = || fs::read_to_string(&state).unwrap_or_default().contains("rebuild");
    while !is_saved() {
        std::thread::yield_now();
    }
    let mut command = running.place.command();
    command.env("BRK_CONFIG", &second).arg("serve");
    let mut second = Lines::of(command);
    second.wait_for("another gateway runs with the state in");
    assert_eq!(second.child.wait().unwrap().code(), Some(1));
    running.signal("KILL");
    let (_, _, place) = running.end();
    assert!(is_saved());
    // What a killed one leaves is in nobody's way.
    let running = place.start();
    assert!(running.brk(&["status"]).ok().contains("forced open"));
}

/// The circuits were saved when it was told to stop, and what became of the
/// requests that were still running was forgotten.
#[test]
fn what_becomes_of_the_last_request_is_saved() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::new(&format!(
        "[services.orders]\nupstream = \"http://{}\"\ncircuit = {{ consecutive_failures = 1 }}\n",
        upstream.local_addr().unwrap(),
    ));
    let mut command = place.command();
    command.arg("serve");
    let mut serve = Lines::of(command);
    let programs = serve.wait_for("programs:");
    let programs = programs.rsplit_once('/').unwrap().1;
    let operators = serve.wait_for("operators:");
    let operators = operators.split_whitespace().nth(1).unwrap().trim_start_matches("http://");
    let mut caller = TcpStream::connect(programs).unwrap();
    caller.set_read_timeout(Some(LONG)).unwrap();
    caller.write_all(b"GET /orders HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let (called, _) = upstream.accept().unwrap();
    signal(&serve.child, "TERM");
    serve.wait_for("told to stop");
    // When operators are not listened for any more, all have been told.
    while TcpStream::connect(operators).is_ok() {
        std::thread::yield_now();
    }
    drop(called);
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(serve.child.wait().unwrap().code(), Some(0));
    let state: Value =
        serde_json::from_slice(&fs::read(place.path("state/state.json")).unwrap()).unwrap();
    assert_eq!(state["circuits"][0]["state"], "open", "{state}");
}

#[test]
fn a_hang_up_has_it_read_again() {
    let place = Place::new(TWO_SERVICES);
    let mut command = place.command();
    command.arg("serve");
    let mut serve = Lines::of(command);
    serve.wait_for("services:");
    signal(&serve.child, "HUP");
    // Also if nothing has changed.
    serve.wait_for("the configuration was read: revision 1, all services as they were");
}
