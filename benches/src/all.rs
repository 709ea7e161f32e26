//! Everything in one run: Barque and etcd in turns on the same machine and
//! disk, so that the ratios mean something where absolute numbers do not.

use std::path::Path;
use std::time::Duration;

use barque_tests::{Cluster, Options};
use serde_json::json;

use crate::kube::{Operation, Targets};
use crate::measure::{Sample, median};
use crate::report::{Medians, Report, add_samples};
use crate::{etcd, failover, kube, memory, probe, schedule, watch};

const BYTES: usize = 1024;

/// How much of everything.
#[derive(Debug)]
pub struct Plan {
    clients: &'static [usize],
    seconds: u64,
    rounds: usize,
    watchers: &'static [usize],
    kills: usize,
    pods: u32,
    nodes: u32,
    schedule_rounds: usize,
    objects: u64,
}

impl Plan {
    /// A few minutes.
    pub fn quick() -> Self {
        Self {
            clients: &[1, 64, 512],
            seconds: 3,
            rounds: 3,
            watchers: &[100],
            kills: 5,
            pods: 1_000,
            nodes: 100,
            schedule_rounds: 1,
            objects: 10_000,
        }
    }

    /// To be quoted.
    pub fn full() -> Self {
        Self {
            clients: &[1, 64, 512],
            seconds: 10,
            rounds: 5,
            watchers: &[1, 100, 1_000],
            kills: 20,
            pods: 1_000,
            nodes: 100,
            schedule_rounds: 3,
            objects: 50_000,
        }
    }
}

/// A line of the final table.
struct Row {
    name: String,
    barque: Medians,
    etcd: Option<Medians>,
}

/// Runs the plan and prints the page.
pub async fn run(plan: &Plan, directory: Option<&Path>, report: &mut Report) -> Result<(), String> {
    let root = match directory {
        Some(directory) => tempfile::Builder::new().prefix("barque-bench-").tempdir_in(directory),
        None => tempfile::Builder::new().prefix("barque-bench-").tempdir(),
    };
    let root = root.map_err(|error| format!("no directory for the data: {error}"))?;
    let place = |name: &str| root.path().join(name);
    report.line(&format!("environment: {}", report.environment()));
    let probed = probe::run(root.path(), BYTES, Duration::from_secs(plan.seconds)).await?;
    report.line(&probed.to_string());
    report.add("probe", json!(probed));

    let mut rows = Vec::new();
    {
        let cluster = Cluster::start(Options { directory: Some(place("barque")), ..Options::default() }).await;
        let targets = Targets::of(&cluster);
        std::fs::create_dir_all(place("etcd")).map_err(|error| error.to_string())?;
        let members = if etcd::available() {
            Some(etcd::Members::start(&place("etcd")).await?)
        } else {
            report.line("no etcd here (Debian: etcd-server): Barque is measured alone");
            None
        };
        if let Some(members) = &members {
            report.add("etcd pids", json!(members.pids()));
        }
        for operation in [Operation::Create, Operation::Get, Operation::Patch, Operation::List] {
            for clients in plan.clients {
                rows.push(turns(plan, &targets, members.as_ref(), operation, *clients, report).await?);
            }
        }
        for watchers in plan.watchers {
            let result = watch::run(&targets, *watchers, 100, Duration::from_secs(plan.seconds), BYTES).await?;
            report.line(&result.to_string());
            report.add("watch", json!(result));
        }
    }

    let gaps = failover::Gaps::new(failover::kill_leaders(plan.kills, Some(&place("failover"))).await?);
    report.line(&gaps.to_string());
    report.add("failover", json!(gaps));
    let scheduled = schedule::local(plan.pods, plan.nodes, plan.schedule_rounds, Some(&place("schedule"))).await?;
    for one in &scheduled {
        report.line(&one.to_string());
    }
    report.add("schedule", json!(scheduled));
    let sizes = memory::local(plan.objects, BYTES, Some(&place("memory"))).await?;
    report.line(&sizes.to_string());
    report.add("memory", json!(sizes));

    report.line(&table(&rows));
    report.line(&format!(
        "- write gap after kill -9 of the leader, median of {}: {:.0} ms\n\
         - {} Pods on {} simulated nodes: bound after {:.2} s, running after {:.2} s (medians)\n\
         - memory of a master (MiB): idle {}; with {} objects {}",
        plan.kills,
        gaps.median_ms,
        plan.pods,
        plan.nodes,
        median(scheduled.iter().map(|one| one.bound_s)),
        median(scheduled.iter().map(|one| one.running_s)),
        memory::list(&sizes.idle_mib),
        plan.objects,
        memory::list(&sizes.full_mib),
    ));
    Ok(())
}

/// Measures one operation on both, alternating.
async fn turns(
    plan: &Plan,
    targets: &Targets,
    members: Option<&etcd::Members>,
    operation: Operation,
    clients: usize,
    report: &mut Report,
) -> Result<Row, String> {
    let time = Duration::from_secs(plan.seconds);
    let (mut ours, mut theirs): (Vec<Sample>, Vec<Sample>) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        ours.push(kube::measure(targets, operation, clients, time, BYTES).await?);
        match (members, operation) {
            (Some(members), Operation::Create) => theirs.push(etcd::puts(members, clients, time, BYTES).await?),
            (Some(members), Operation::Get) => theirs.push(etcd::gets(members, clients, time, BYTES).await?),
            _ => {}
        }
    }
    let barque = add_samples(report, operation.name(), clients, &ours);
    let etcd = (!theirs.is_empty()).then(|| {
        let name = if operation == Operation::Create { "etcd put" } else { "etcd get" };
        add_samples(report, name, clients, &theirs)
    });
    let plural = if clients == 1 { "" } else { "s" };
    Ok(Row { name: format!("{}, {clients} client{plural}", operation.name()), barque, etcd })
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| operation | Barque /s | p50 ms | p99 ms | etcd /s | p50 ms | p99 ms | Barque : etcd |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for Row { name, barque, etcd } in rows {
        let ours = format!("{:.0} | {:.2} | {:.2}", barque.per_second, barque.p50_ms, barque.p99_ms);
        let theirs = etcd.map_or_else(
            || "– | – | – | –".to_owned(),
            |etcd| {
                let ratio = barque.per_second / etcd.per_second.max(f64::MIN_POSITIVE);
                format!("{:.0} | {:.2} | {:.2} | {ratio:.2}", etcd.per_second, etcd.p50_ms, etcd.p99_ms)
            },
        );
        text.push_str(&format!("| {name} | {ours} | {theirs} |\n"));
    }
    text
}
