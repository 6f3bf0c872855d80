//! The program as a child process on a port of its own, ended with the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::Client;
use serde_json::{Value, json};

/// What administrators show.
pub const ADMIN_TOKEN: &str = "token-of-the-administrators";

/// A serving process.
pub struct Process {
    child: Child,
    /// `127.0.0.1:port`.
    pub address: String,
}

impl Process {
    /// Starts it over this directory, and returns once it is ready.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// The same with these keys set.
    pub fn start_with(data: &Path, keys: &[String]) -> Self {
        let token = format!("auth.admin_token={ADMIN_TOKEN}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstcome"));
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("FIRSTCOME__")) {
            command.env_remove(key);
        }
        command.args(["--listen=127.0.0.1:0", "--set", &token, "--set", "log.level=error"]).current_dir(data);
        command.args(keys.iter().flat_map(|key| ["--set", key]));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut welcome = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut welcome).unwrap();
        let address = welcome.split("http://").nth(1).expect("it says where it is ready").trim().to_owned();
        Self { child, address }
    }

    /// As by `kill -9`: nothing is finished.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Bytes of memory that are its own.
    pub fn anonymous_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Makes a coupon; its id.
    pub async fn coupon(&self, client: &Client, total_quantity: Option<u64>, per_user_limit: u8) -> u64 {
        let body = json!({"title": "test", "total_quantity": total_quantity, "per_user_limit": per_user_limit, "use_within_days": 30});
        let url = format!("http://{}/v1/coupons", self.address);
        let made = client.post(url).bearer_auth(ADMIN_TOKEN).json(&body).send().await.unwrap();
        assert_eq!(made.status(), 201);
        made.json::<Value>().await.unwrap()["id"].as_u64().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
