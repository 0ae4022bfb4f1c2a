//! `local-postgres [ADDRESS...]`: a private server that is gone when this ends, for programs that are not in Rust.
//!
//! Prints the connection text of an empty database, by way of 127.0.0.1, and ends with its input. The server listens on
//! the addresses, too, such as the one by which containers reach this machine.

use std::error::Error;
use std::io::{self, Write};
use std::net::Ipv4Addr;

use local_postgres::{Options, Server};

fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses = Ipv4Addr::LOCALHOST.to_string();
    for address in std::env::args().skip(1) {
        addresses = format!("{addresses},{}", address.parse::<Ipv4Addr>()?);
    }
    let server = Server::start_ephemeral(&Options {
        settings: vec![format!("listen_addresses = '{addresses}'")],
        files: vec![("pg_hba.conf".into(), b"host all all all scram-sha-256\n".into())],
    })?;
    writeln!(io::stdout(), "{}", server.url("postgres"))?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
