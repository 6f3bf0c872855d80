//! Private database servers: a real `mysqld` or `mariadbd` on a free port of loopback, with its data in a
//! temporary directory.
//!
//! Found by `MYSQLD` and `MARIADBD`, or on the `PATH`. A test program shares one among its tests, each of
//! which makes a database of its own. A server dies with the program that started it, however that ends: a
//! shell holds the server and waits on a pipe that only this process has open.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

/// How long a server may take to make its data, and to start.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Ports below those that the system gives to connections, so that none is taken while whoever is to listen
/// there is not there yet, or away.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Waits for its input to end, which it does with the process that holds it, then ends the server and removes
/// its data.
const HOLDER: &str = r#"directory=$1; shift
"$@" >>"$directory/log" 2>&1 </dev/null & server=$!
read -r word; [ "$word" = keep ] || { kill -9 $server; wait $server; rm -rf "$directory"; exit; }
kill -9 $server; wait $server"#;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Oracle's, whichever version is found.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Kind {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        }
    }

    /// The server's program, or why there is none.
    fn program(self) -> Result<PathBuf, String> {
        let (variable, name) = match self {
            Self::MySql => ("MYSQLD", "mysqld"),
            Self::MariaDb => ("MARIADBD", "mariadbd"),
        };
        let named = std::env::var_os(variable)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let program = named
            .or_else(|| on_the_path(name))
            .ok_or(format!("neither {variable} is set nor {name} on the PATH"))?;
        let said = Command::new(&program)
            .args(["--no-defaults", "--version"])
            .output();
        let said = said.map_err(|error| format!("{}: {error}", program.display()))?;
        let is_mariadb = String::from_utf8_lossy(&said.stdout).contains("MariaDB");
        match (said.status.success(), is_mariadb == (self == Self::MariaDb)) {
            (true, true) => Ok(program),
            (true, false) => Err(format!(
                "{} is not {}, and {variable} is not set",
                program.display(),
                self.name()
            )),
            (false, _) => Err(format!("{} --version fails", program.display())),
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    program: PathBuf,
    directory: PathBuf,
    port: u16,
    arguments: Vec<String>,
    holder: Mutex<Option<Child>>,
}

/// Settings that make a server quick; commits are still written before they are told, but not synced. Whoever
/// needs durability adds it.
const QUICK: [&str; 4] = [
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-buffer-pool-size=128M",
    "--max-connections=500",
    "--skip-log-bin",
];

/// Who a service logs in as: nobody with rights over the server, as those may write where it is read-only.
/// Owns every database whose name begins with `fc_`.
pub const USER: &str = "firstcome";
/// The password of [`USER`], with what a URL must escape.
pub const PASSWORD: &str = "a secret: it's/100%";

impl Server {
    /// The server of this kind that all tests of this program share; `None`, and a line that says so, where
    /// there is no program for it. With `FIRSTCOME_REQUIRE_DATABASES=1` that is a failure.
    ///
    /// # Panics
    /// If there is a program, and it does not start.
    pub fn shared(kind: Kind) -> Option<&'static Self> {
        static MYSQL: OnceLock<Option<Server>> = OnceLock::new();
        static MARIADB: OnceLock<Option<Server>> = OnceLock::new();
        let shared = match kind {
            Kind::MySql => &MYSQL,
            Kind::MariaDb => &MARIADB,
        };
        let server = shared.get_or_init(|| match kind.program() {
            Ok(program) => Some(
                Self::start_program(kind, program, &[])
                    .unwrap_or_else(|why| panic!("{} does not start: {why}", kind.name())),
            ),
            Err(why) => {
                // Past the capture of tests that pass.
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: no test runs on {}: {why}",
                    kind.name()
                );
                None
            }
        });
        let required = std::env::var("FIRSTCOME_REQUIRE_DATABASES").is_ok_and(|required| required == "1");
        assert!(
            server.is_some() || !required,
            "FIRSTCOME_REQUIRE_DATABASES=1, but there is no {}",
            kind.name()
        );
        server.as_ref()
    }

    /// A server for one test alone, skipped as [`Self::shared`] is.
    ///
    /// # Panics
    /// If there is a program, and it does not start.
    pub fn own(kind: Kind, arguments: &[&str]) -> Option<Self> {
        Self::shared(kind)?;
        Some(
            Self::start(kind, arguments)
                .unwrap_or_else(|why| panic!("{} does not start: {why}", kind.name())),
        )
    }

    /// A server of this kind, or why there is none. The arguments come after the quick settings, and so
    /// override them: `--innodb-flush-log-at-trx-commit=1` for one that keeps what it tells.
    pub fn start(kind: Kind, arguments: &[&str]) -> Result<Self, String> {
        Self::start_program(kind, kind.program()?, arguments)
    }

    fn start_program(kind: Kind, program: PathBuf, arguments: &[&str]) -> Result<Self, String> {
        let directory = tempfile::Builder::new()
            .prefix("firstcome-server-")
            .tempdir()
            .map_err(|error| error.to_string())?
            .keep();
        make_data(kind, &program, &directory)?;
        let port = free_port();
        let arguments = QUICK
            .iter()
            .chain(arguments)
            .map(|argument| (*argument).to_owned())
            .collect();
        let server = Self {
            kind,
            program,
            directory,
            port,
            arguments,
            holder: Mutex::new(None),
        };
        server.resume()?;
        Ok(server)
    }

    /// Starts the server on the data it has.
    pub fn resume(&self) -> Result<(), String> {
        self.resume_with(&[])
    }

    /// The same with more arguments, which override those of before.
    pub fn resume_with(&self, more: &[&str]) -> Result<(), String> {
        let directory = self.directory.display();
        let mut command = Command::new("sh");
        command
            .args(["-c", HOLDER, "sh"])
            .arg(&self.directory)
            .arg(&self.program)
            .arg("--no-defaults");
        command.args([
            format!("--datadir={directory}/data"),
            format!("--port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--socket={directory}/socket"),
            format!("--pid-file={directory}/pid"),
            format!("--init-file={directory}/init.sql"),
            "--user=root".to_owned(),
        ]);
        command
            .args(&self.arguments)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Ctrl-C in a terminal is for this process, which ends the server when it is time.
        command.process_group(0);
        let holder = command.spawn().map_err(|error| error.to_string())?;
        *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(holder);
        let begun = Instant::now();
        while !self.directory.join("socket").exists() || TcpStream::connect(("127.0.0.1", self.port)).is_err()
        {
            if begun.elapsed() > START_LIMIT {
                return Err(format!("nothing listens; {}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends the server as a power cut would, as far as its process goes; its data stays.
    pub fn kill(&self) {
        let holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut holder) = holder {
            if let Some(mut input) = holder.stdin.take() {
                let _ = input.write_all(b"keep\n");
            }
            let _ = holder.wait();
            let _ = std::fs::remove_file(self.directory.join("socket"));
        }
    }

    /// Ends the server, and returns when its data is removed too. Without this that happens in the
    /// background, as soon as the server is dropped.
    pub fn stop(self) {
        if let Some(mut holder) = self.holder.into_inner().unwrap_or_else(PoisonError::into_inner) {
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Which server it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where an administrator connects: only on this machine, without a password.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Where its data is, for whoever keeps or replaces it while the server does not run.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The URL of a database, through another port if one is given. Without TLS, so that what passes by can
    /// be looked at.
    pub fn url(&self, database: &str, port: Option<u16>) -> String {
        let password: String = PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!(
            "mysql://{USER}:{password}@127.0.0.1:{}/{database}?ssl-mode=DISABLED",
            port.unwrap_or(self.port)
        )
    }

    /// How to connect with all rights, past any network.
    pub fn administrator(&self) -> MySqlConnectOptions {
        MySqlConnectOptions::new()
            .socket(self.socket())
            .username("root")
            .ssl_mode(MySqlSslMode::Disabled)
    }

    /// Makes an empty database; its URL.
    pub async fn fresh_database(&self) -> sqlx::Result<String> {
        let name = Self::fresh_name();
        let mut connection = self.administrator().connect().await?;
        // A name of ours, without anything to escape.
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(self.url(&name, None))
    }

    /// A name that no other database of this server has.
    pub fn fresh_name() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("fc_{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A port of loopback at which nobody listens, and that this process is given once.
///
/// Each process begins elsewhere, and those that are started one after the other far apart, so that two at a
/// time hardly ever meet.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const STRIDE: u64 = 7_919;
    let count = PORTS.end - PORTS.start;
    let first = u16::try_from(u64::from(std::process::id()) * STRIDE % u64::from(count))
        .expect("less than the count");
    loop {
        let port = PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed) % count) % count;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn make_data(kind: Kind, program: &Path, directory: &Path) -> Result<(), String> {
    let init = format!(
        "CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{}';\nGRANT ALL ON `fc\\_%`.* TO '{USER}'@'%';\n",
        PASSWORD.replace('\'', "''")
    );
    std::fs::write(directory.join("init.sql"), init).map_err(|error| error.to_string())?;
    let data = format!("--datadir={}", directory.join("data").display());
    let mut command = match kind {
        Kind::MySql => {
            let mut command = Command::new(program);
            command.args([
                "--no-defaults",
                "--initialize-insecure",
                &data,
                "--innodb-redo-log-capacity=64M",
                "--user=root",
            ]);
            command
        }
        Kind::MariaDb => {
            let beside = ["../bin", "../scripts"]
                .map(|folder| program.with_file_name(folder).join("mariadb-install-db"));
            let installer = beside
                .into_iter()
                .find(|path| path.exists())
                .or_else(|| on_the_path("mariadb-install-db"));
            let mut command = Command::new(installer.ok_or("there is no mariadb-install-db")?);
            command.args([
                "--no-defaults",
                &data,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--user=root",
            ]);
            command
        }
    };
    let made = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    match made.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{}\n{}",
            String::from_utf8_lossy(&made.stdout),
            String::from_utf8_lossy(&made.stderr)
        )),
    }
}

fn on_the_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
