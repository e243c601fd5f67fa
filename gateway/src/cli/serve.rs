//! `brk serve`: everything, until it is told to stop.

use std::{
    env,
    io::{self, IsTerminal},
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::ValueEnum;
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tracing_subscriber::{EnvFilter, fmt};

use super::{Error, Global, Output, show};
use crate::{
    admin::{Metrics, Operator, Tokens},
    gateway::{Alone, Gateway},
    history, notify,
    proxy::Stop,
    serve,
};

/// How long the history and the notifications have for the last of it.
const AT_THE_END: Duration = Duration::from_secs(5);

/// Once it listens it prints where. On SIGTERM and SIGINT it takes no more
/// requests, lets those that run come to their end, and ends; told a second time
/// it ends at once. On SIGHUP, and when a file changes, it reads the
/// configuration again.
#[derive(clap::Args, Debug)]
pub struct Serve {
    /// What is logged, such as `info` or `brk=debug,info`
    #[arg(long, env = "BRK_LOG", default_value = "info", value_name = "FILTER")]
    log: String,

    /// How it is logged, to the standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    #[default]
    Text,
    /// A JSON object a line
    Json,
}

impl Serve {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        self.begin_logging()?;
        let (stopper, stop) = Stop::new();
        // What remembers goes on until the last request has ended: what becomes of
        // that counts, too.
        let (finisher, finished) = Stop::new();
        let told = told_to_stop()?;
        // Until it is heard it must not end the process.
        let _hang_up = signal(SignalKind::hangup())?;
        let path = global.config_path();
        let settings = global.settings()?;
        // First of all: the state directory is made with them, and nothing is
        // listened on without.
        let tokens = Tokens::of(&settings.admin.state).map_err(Error::new)?;
        let _alone = Alone::with(&settings.admin.state)?;
        // Before there is a circuit, or it would not be counted.
        let metrics = Metrics::install().map_err(Error::new)?;
        let gateway = Gateway::start(path, settings);
        let bound = serve::bind(gateway.clone())?;
        let programs = bound.addresses().to_vec();
        let history = history::start(&gateway, telling(&finished))?;
        let operator =
            Operator::bind(&gateway, &programs, tokens, metrics.clone(), history.clone()).await?;
        let admin = operator.address()?;
        let notifications = notify::start(&gateway, telling(&finished));

        let mut beside = JoinSet::new();
        beside.spawn(metrics.keep_up(stop.clone()));
        beside.spawn(operator.serve(stop.clone()));
        let kept = gateway.keep(telling(&finished));
        let running = async {
            // However this ends, the others are told.
            let (stopper, _finisher) = (stopper, finisher);
            let mut served = tokio::spawn(bound.run(stop.clone()));
            // Nobody may be reading.
            let _ = announce(global, &gateway, &programs, admin);
            tell_systemd("READY=1");
            let ended = tokio::select! {
                ended = &mut served => ended,
                () = told => {
                    tell_systemd("STOPPING=1");
                    tracing::info!("told to stop: requests that run come to their end");
                    stopper.stop();
                    tokio::select! {
                        ended = served => ended,
                        () = told_to_stop()? => {
                            return Err(Error::new("told to stop twice: requests were cut off"));
                        }
                    }
                }
            };
            Ok(ended
                .map_err(|error| Error::new(format_args!("the data path broke: {error}")))??)
        };
        // At the end it is saved how the circuits are.
        let ((), ended) = tokio::join!(kept, running);
        while beside.join_next().await.is_some() {}
        // A disk that is full or a target that is gone holds nothing up for long;
        // what was not delivered is said where it is.
        let (is_written, _) =
            tokio::join!(history.finish(AT_THE_END), notifications.finish(AT_THE_END));
        if !is_written {
            tracing::warn!("the end of the history is lost: it can't be written");
        }
        ended.map(|()| ExitCode::SUCCESS)
    }

    fn begin_logging(&self) -> Result<(), Error> {
        let filter = EnvFilter::try_new(&self.log).map_err(|error| {
            Error::usage(format_args!("--log is {:?}, which is no filter: {error}", self.log))
        })?;
        let is_coloured = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
        // Whoever reads the log may go away. What can't be said then is not missed; that
        // it can't be said would be said by a panic, wherever the word fell.
        let log = fmt().log_internal_errors(false);
        let log = log.with_env_filter(filter).with_ansi(is_coloured).with_writer(io::stderr);
        let begun = match self.log_format {
            LogFormat::Text => log.try_init(),
            LogFormat::Json => log.json().try_init(),
        };
        begun.map_err(Error::new)
    }
}

/// Ends when the word to stop is given.
fn telling(stop: &Stop) -> impl Future<Output = ()> + Send + 'static {
    let mut stop = stop.clone();
    async move { stop.told().await }
}

/// Ends with the first signal to stop from here on.
fn told_to_stop() -> Result<impl Future<Output = ()>, Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Says where it listens, for whoever has started it.
fn announce(
    global: &Global,
    gateway: &Gateway,
    programs: &[SocketAddr],
    admin: SocketAddr,
) -> Result<(), Error> {
    let programs: Vec<_> = programs.iter().map(|at| format!("http://{at}")).collect();
    let (admin, services) = (format!("http://{admin}"), gateway.table().services.len());
    if global.output == Output::Json {
        let said = json!({ "listen": programs, "admin": admin, "services": services });
        return show::json_line(&said);
    }
    show::line(&format!("programs:  {}", programs.join(", ")))?;
    show::line(&format!("operators: {admin} (`brk dashboard` has the address with the token)"))?;
    show::line(&format!("services:  {services}"))
}

/// Tells systemd how it stands, if it has asked to be told.
fn tell_systemd(how: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").map(PathBuf::from) else { return };
    let told = (|| {
        let from = UnixDatagram::unbound()?;
        match socket.to_string_lossy().strip_prefix('@') {
            None => from.send_to(how.as_bytes(), &socket),
            #[cfg(target_os = "linux")]
            Some(name) => {
                use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
                let address = SocketAddr::from_abstract_name(name)?;
                from.send_to_addr(how.as_bytes(), &address)
            }
            #[cfg(not(target_os = "linux"))]
            Some(_) => Ok(0),
        }
    })();
    if let Err(error) = told {
        tracing::warn!(%error, "systemd can't be told");
    }
}
