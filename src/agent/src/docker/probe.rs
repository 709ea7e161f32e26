//! Carries out probes and hooks.

use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe};
use barque_api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::engine::Engine;
use crate::pods::probes;

/// Bytes of an HTTP answer that are read.
const MAX_ANSWER: usize = 10 * 1024;

/// Runs a probe. `Err` is the text of the event.
pub async fn probe(engine: &Engine, id: &str, container: &Container, probe: &Probe, ip: &str) -> Result<(), String> {
    let limit = probes::timeout(probe);
    if let Some(exec) = &probe.exec {
        return exec_ok(engine, id, exec.command.as_deref().unwrap_or_default(), limit).await;
    }
    if let Some(get) = &probe.http_get {
        return http(get, container, ip, limit).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        let host = socket.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(ip);
        return connect(host, port(&socket.port, container)?, limit).await.map(|_| ());
    }
    Err("this kind of probe is not supported on this node".to_owned())
}

/// Runs a lifecycle hook.
pub async fn hook(
    engine: &Engine,
    id: &str,
    container: &Container,
    handler: &LifecycleHandler,
    ip: &str,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        exec_ok(engine, id, exec.command.as_deref().unwrap_or_default(), limit).await
    } else if let Some(get) = &handler.http_get {
        http(get, container, ip, limit).await
    } else if let Some(sleep) = &handler.sleep {
        let asked = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(asked.min(limit)).await;
        Ok(())
    } else {
        Err("this kind of hook is not supported on this node".to_owned())
    }
}

async fn exec_ok(engine: &Engine, id: &str, command: &[String], limit: Duration) -> Result<(), String> {
    match engine.exec(id, command, limit).await {
        Ok((0, _)) => Ok(()),
        Ok((_, output)) => Err(output.trim_end().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => name.parse().ok().or_else(|| {
            let ports = container.ports.iter().flatten();
            ports.into_iter().find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port)
        }),
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port: {name}"),
    })
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let address = host_port(host, port);
    match timeout(limit, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", reason(&error))),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        _ => error.to_string(),
    }
}

async fn http(get: &HTTPGetAction, container: &Container, ip: &str, limit: Duration) -> Result<(), String> {
    if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
        return Err("HTTPS probes are not supported on this node".to_owned());
    }
    let host = get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(ip);
    let port = port(&get.port, container)?;
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!("http://{}{slash}{path}", host_port(host, port));
    let mut request = format!("GET {slash}{path} HTTP/1.1\r\n");
    let mut headers: Vec<(String, String)> =
        get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone())).collect();
    let defaults =
        [("Host", host_port(host, port)), ("User-Agent", "kube-probe/1.36".to_owned()), ("Accept", "*/*".to_owned())];
    for (name, value) in defaults {
        if !headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)) {
            headers.push((name.to_owned(), value));
        }
    }
    for (name, value) in headers {
        if name.contains(['\r', '\n']) || value.contains(['\r', '\n']) {
            return Err(format!("invalid header {name:?}"));
        }
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("Connection: close\r\n\r\n");
    let exchange = async {
        let mut stream = connect(host, port, limit).await.map_err(|error| format!("Get \"{url}\": {error}"))?;
        let told = |error: std::io::Error| format!("Get \"{url}\": {error}");
        stream.write_all(request.as_bytes()).await.map_err(told)?;
        let mut answer = Vec::new();
        let mut chunk = [0; 2048];
        while answer.len() < MAX_ANSWER {
            match stream.read(&mut chunk).await.map_err(told)? {
                0 => break,
                n => answer.extend_from_slice(&chunk[..n]),
            }
        }
        Ok::<_, String>(answer)
    };
    let answer = match timeout(limit, exchange).await {
        Ok(answer) => answer?,
        Err(_) => {
            return Err(format!(
                "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            ));
        }
    };
    verdict(&answer).map_err(|problem| match problem {
        None => format!("Get \"{url}\": EOF"),
        Some(problem) => problem,
    })
}

/// What an HTTP answer says; `Err(None)` when it is none.
fn verdict(answer: &[u8]) -> Result<(), Option<String>> {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(MAX_ANSWER)]);
    let code = text
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_whitespace().nth(1))
        .and_then(|code| code.parse::<u16>().ok())
        .ok_or(None)?;
    if (200..400).contains(&code) {
        return Ok(());
    }
    Err(Some(format!("HTTP probe failed with statuscode: {code}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(verdict(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        assert_eq!(verdict(b"HTTP/1.0 301 Moved\r\n\r\n"), Ok(()));
        let failed = Err(Some("HTTP probe failed with statuscode: 503".to_owned()));
        assert_eq!(verdict(b"HTTP/1.1 503 No\r\n\r\n"), failed);
        assert_eq!(verdict(b"nonsense"), Err(None));
    }

    #[tokio::test]
    async fn ports_by_name_and_refused_connections() {
        let container: Container =
            serde_json::from_value(serde_json::json!({"name": "a", "ports": [{"name": "web", "containerPort": 8080}]}))
                .expect("a container");
        assert_eq!(port(&IntOrString::String("web".into()), &container), Ok(8080));
        assert_eq!(port(&IntOrString::String("x".into()), &container), Err("couldn't find port: x".into()));
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let refused = connect("127.0.0.1", free, Duration::from_secs(1)).await.expect_err("nobody listens");
        assert_eq!(refused, format!("dial tcp 127.0.0.1:{free}: connect: connection refused"));
    }
}
