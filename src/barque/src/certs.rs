//! `barque certs`: certificates for clusters that are set up by hand.

use barque_api::world::World;

use crate::cli::CertsCommand;
use crate::kubeconfig::{self, Endpoint};
use crate::pki::{Authority, CertificatePaths, PkiError, Subject};

/// Runs `barque certs`.
///
/// # Errors
/// When files cannot be read or written.
pub fn run(command: CertsCommand) -> Result<(), PkiError> {
    let now = World::system().now();
    match command {
        CertsCommand::Init { dir } => {
            Authority::open_or_create(&dir, now)?;
            println!("{}", dir.join("ca.crt").display());
        }
        CertsCommand::Master { dir, id, address } => {
            let paths = CertificatePaths::new(&dir, &format!("master-{id}"));
            Authority::open_or_create(&dir, now)?.ensure(&paths, &Subject::master(id, &address), now)?;
            println!("{}", paths.certificate.display());
        }
        CertsCommand::Node { dir, name, address, group } => {
            let paths = CertificatePaths::new(&dir, &name);
            let subject = if group { Subject::node_group(&name, &address) } else { Subject::node(&name, &address) };
            Authority::open_or_create(&dir, now)?.ensure(&paths, &subject, now)?;
            println!("{}", paths.certificate.display());
        }
        CertsCommand::FrontProxy { dir } => {
            let paths = CertificatePaths::new(&dir, "front-proxy");
            Authority::open_or_create(&dir, now)?.ensure(&paths, &Subject::front_proxy(), now)?;
            println!("{}", paths.certificate.display());
        }
        CertsCommand::Kubeconfig { dir, server, output } => {
            let authority = Authority::open_or_create(&dir, now)?;
            let paths = CertificatePaths::new(&dir, "admin");
            authority.ensure(&paths, &Subject::administrator(), now)?;
            let endpoint = Endpoint { context: "barque".into(), url: server };
            kubeconfig::write(&output, &[endpoint], &authority.certificate_pem, &paths)?;
            println!("{}", output.display());
        }
    }
    Ok(())
}
