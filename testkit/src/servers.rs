//! Private database servers: a real `mysqld` or `mariadbd` on a free port of loopback, with its data in a
//! temporary directory. [`redis`] is the same for `redis-server`.
//!
//! The programs are named by `MYSQLD` and `MARIADBD`, or found on the `PATH`. The tests of a program share
//! one server of each kind, and each test makes a database of its own. A server and its data never outlive
//! the program that started it ([`crate::process`]).

mod each;
pub mod redis;

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::poll::eventually;
use crate::ports::free_port;
use crate::process::{Process, Spawn};

/// How long a server may take to make its data, and to start.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A kind of database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl ServerKind {
    /// Returns the usual name of this kind.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        }
    }

    /// Returns the server's program, or why there is no program.
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
        let version = Command::new(&program)
            .args(["--no-defaults", "--version"])
            .output();
        let version = version.map_err(|error| format!("{}: {error}", program.display()))?;
        let is_mariadb = String::from_utf8_lossy(&version.stdout).contains("MariaDB");
        match (version.status.success(), is_mariadb == (self == Self::MariaDb)) {
            (true, true) => Ok(program),
            (true, false) => Err(format!(
                "{} is not {}: name another program with {variable}",
                program.display(),
                self.name()
            )),
            (false, _) => Err(format!("{} --version fails", program.display())),
        }
    }

    /// True if this machine has a program of this kind. If it has none, tests are skipped, and a line on
    /// standard error says so, once for each kind.
    ///
    /// # Panics
    /// If there is no program and `FIRSTCOME_REQUIRE_DATABASES` is 1.
    pub fn is_available(self) -> bool {
        static MYSQL: OnceLock<bool> = OnceLock::new();
        static MARIADB: OnceLock<bool> = OnceLock::new();
        let available = match self {
            Self::MySql => &MYSQL,
            Self::MariaDb => &MARIADB,
        };
        let is_available = *available.get_or_init(|| match self.program() {
            Ok(_) => true,
            Err(reason) => {
                // The test harness hides what a passing test prints with eprintln, but not this.
                let name = self.name();
                let _ = writeln!(std::io::stderr(), "SKIPPED: no test runs on {name}: {reason}");
                false
            }
        });
        assert!(
            is_available || !is_required(),
            "FIRSTCOME_REQUIRE_DATABASES=1, but there is no {}",
            self.name()
        );
        is_available
    }
}

/// True if a server that this machine does not have is an error (`FIRSTCOME_REQUIRE_DATABASES=1`), and not a
/// reason to skip what needs it.
pub fn is_required() -> bool {
    std::env::var("FIRSTCOME_REQUIRE_DATABASES").is_ok_and(|required| required == "1")
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    kind: ServerKind,
    program: PathBuf,
    directory: PathBuf,
    port: u16,
    arguments: Vec<String>,
    process: Mutex<Option<Process>>,
}

/// Settings that make a server fast. Commits are written before they are acknowledged, but not synced. A test
/// that needs durable commits overrides the first setting.
const FAST: [&str; 4] = [
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-buffer-pool-size=128M",
    "--max-connections=500",
    "--skip-log-bin",
];

/// The user that a service logs in as. It owns every database whose name begins with `fc_`, and has no rights
/// over the server, because those would allow it to write even if the server is read-only.
pub const USER: &str = "firstcome";
/// The password of [`USER`], with characters that a URL must escape.
pub const PASSWORD: &str = "a secret: it's/100%";

impl Server {
    /// Returns the server of this kind that all tests of this program share. The first call starts it.
    ///
    /// # Panics
    /// If there is no program of this kind ([`ServerKind::is_available`]), or the server does not start.
    pub fn shared(kind: ServerKind) -> &'static Self {
        static MYSQL: OnceLock<Server> = OnceLock::new();
        static MARIADB: OnceLock<Server> = OnceLock::new();
        let shared = match kind {
            ServerKind::MySql => &MYSQL,
            ServerKind::MariaDb => &MARIADB,
        };
        shared.get_or_init(|| Self::own(kind, &[]))
    }

    /// Starts a server for one test.
    ///
    /// # Panics
    /// If there is no program of this kind ([`ServerKind::is_available`]), or the server does not start.
    pub fn own(kind: ServerKind, arguments: &[&str]) -> Self {
        let started = Self::start(kind, arguments);
        started.unwrap_or_else(|error| panic!("{} does not start: {error}", kind.name()))
    }

    /// Starts a server of this kind. The arguments come after the fast settings, and so override them:
    /// `--innodb-flush-log-at-trx-commit=1` makes commits durable. The error says why there is no server.
    ///
    /// Blocks.
    pub fn start(kind: ServerKind, arguments: &[&str]) -> Result<Self, String> {
        let program = kind.program()?;
        let directory = tempfile::Builder::new()
            .prefix("firstcome-server-")
            .tempdir()
            .map_err(|error| error.to_string())?
            .keep();
        let arguments = FAST
            .iter()
            .chain(arguments)
            .map(|argument| (*argument).to_owned());
        let server = Self {
            kind,
            program,
            directory,
            port: free_port(),
            arguments: arguments.collect(),
            process: Mutex::new(None),
        };
        make_data(kind, &server.program, &server.directory)?;
        server.resume()?;
        Ok(server)
    }

    /// Starts the server on its data after [`Self::kill`]. Blocks.
    pub fn resume(&self) -> Result<(), String> {
        self.resume_with(&[])
    }

    /// Starts the server like [`Self::resume`], with more arguments, which override the earlier arguments.
    pub fn resume_with(&self, more: &[&str]) -> Result<(), String> {
        let directory = self.directory.display();
        let mut command = Command::new(&self.program);
        command.env("TMPDIR", self.directory.join("tmp"));
        command.arg("--no-defaults").args([
            format!("--datadir={directory}/data"),
            format!("--port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--socket={directory}/socket"),
            format!("--pid-file={directory}/pid"),
            format!("--init-file={directory}/init.sql"),
            "--user=root".to_owned(),
        ]);
        command.args(&self.arguments).args(more);
        let spawn = Spawn::new(command, self.directory.join("log")).orphan_directory(&self.directory);
        let process = spawn.start().map_err(|error| error.to_string())?;
        let begun = Instant::now();
        while !self.socket().exists() || TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let has_ended = process.status().map_err(|error| error.to_string())?.is_some();
            if has_ended || begun.elapsed() > START_LIMIT {
                return Err(format!("the server does not listen\n{}", process.log_tail()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.process() = Some(process);
        Ok(())
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the server's process; its data stays. Blocks.
    pub fn kill(&self) {
        if let Some(process) = self.process().take() {
            process.kill();
            let _ = std::fs::remove_file(self.socket());
        }
    }

    /// Returns the id of the server's process; `None` if it was killed.
    pub fn process_id(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    /// Returns the server's kind.
    pub fn kind(&self) -> ServerKind {
        self.kind
    }

    /// Returns the port of loopback where the server listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path of the socket where an administrator connects, without a password.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Returns the directory of its data, which may be copied or replaced while the server does not run.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Returns the URL of a database. If `port` is given, the URL has it instead of the server's port. The
    /// URL turns TLS off, so that a proxy can read the statements.
    pub fn url(&self, database: &str, port: Option<u16>) -> String {
        let password: String = PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!(
            "mysql://{USER}:{password}@127.0.0.1:{}/{database}?ssl-mode=DISABLED",
            port.unwrap_or(self.port)
        )
    }

    /// Returns how to connect with all rights, over the socket.
    pub fn administrator(&self) -> MySqlConnectOptions {
        MySqlConnectOptions::new()
            .socket(self.socket())
            .username("root")
            .ssl_mode(MySqlSslMode::Disabled)
    }

    /// Connects to a database, with all rights.
    pub async fn shell(&self, database: &str) -> sqlx::Result<MySqlConnection> {
        self.administrator().database(database).connect().await
    }

    /// Makes an empty database with these options of `CREATE DATABASE`, and returns its unique name.
    pub async fn make_database(&self, options: &str) -> sqlx::Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("fc_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut connection = self.administrator().connect().await?;
        // No character of the name needs escaping.
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name} {options}")))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(name)
    }
}

impl Server {
    /// Makes an empty database and returns its name. First waits until the server takes writes, because a
    /// server of a replication group takes connections before it takes writes.
    ///
    /// # Panics
    /// If the server takes no writes in time.
    pub async fn make_writable_database(&self) -> String {
        let mut name = None;
        eventually("the server takes writes", async || {
            name = self.make_database("").await.ok();
            name.is_some()
        })
        .await;
        name.expect("the wait ends with a name")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Runs statements on a connection, without preparing them.
///
/// # Panics
/// If a statement fails.
pub async fn run(connection: &mut MySqlConnection, statements: &str) {
    let ran = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
    let ran = ran.execute(connection).await;
    ran.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// Makes the files that a server starts with. Each server has a folder for temporary files of its own, because
/// MariaDB deletes all temporary tables in that folder when it starts, also those of other servers.
fn make_data(kind: ServerKind, program: &Path, directory: &Path) -> Result<(), String> {
    let temporary = directory.join("tmp");
    std::fs::create_dir(&temporary).map_err(|error| error.to_string())?;
    let init = format!(
        "CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{}';\nGRANT ALL ON `fc\\_%`.* TO '{USER}'@'%';\n",
        PASSWORD.replace('\'', "''")
    );
    std::fs::write(directory.join("init.sql"), init).map_err(|error| error.to_string())?;
    let data = format!("--datadir={}", directory.join("data").display());
    let mut command = match kind {
        ServerKind::MySql => {
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
        ServerKind::MariaDb => {
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
        .env("TMPDIR", &temporary)
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
