//! The messages of a check.

use std::time::Duration;

use starlift_proto as pb;

use super::{WireError, bad, optional};
use crate::check::{
    Backend, Backends, Finding, Findings, Outcome, Part, Scope, SourceScope, TargetScope, Trial,
};
use crate::job::SourceKind;

/// A check order as it goes out to workers.
pub fn check_order(check_id: &str, scope: &Scope, trial: Option<&Trial>) -> pb::CheckOrder {
    let backends = scope.backends.clone().unwrap_or_default();
    pb::CheckOrder {
        check_id: check_id.to_owned(),
        sources: scope.sources.iter().map(source_to_wire).collect(),
        target: scope.target.as_ref().map(|target| pb::CheckTarget {
            datasource: target.datasource.clone(),
            database: target.database.clone().unwrap_or_default(),
            table: target.table.clone(),
            load_urls: target.load_urls.clone(),
            warehouse: target.warehouse.clone().unwrap_or_default(),
            label_prefix: target.label_prefix.clone(),
        }),
        backends: backends
            .nodes
            .into_iter()
            .map(|node| pb::CheckBackend { address: node.address, alive: node.alive })
            .collect(),
        backends_complete: backends.complete,
        patience_ms: u32::try_from(scope.patience.as_millis()).unwrap_or(u32::MAX),
        read: trial.map(|trial| (&trial.read).into()),
        load: trial.map(|trial| (&trial.load).into()),
    }
}

/// What a worker is asked to try.
pub fn check_scope(order: pb::CheckOrder) -> Result<(Scope, Option<Trial>), WireError> {
    let nodes: Vec<Backend> =
        order.backends.into_iter().map(|node| Backend { address: node.address, alive: node.alive }).collect();
    let scope = Scope {
        sources: order.sources.into_iter().map(source_of_wire).collect::<Result<_, _>>()?,
        target: order.target.map(|target| TargetScope {
            datasource: target.datasource,
            database: optional(&target.database),
            table: target.table,
            load_urls: target.load_urls,
            warehouse: optional(&target.warehouse),
            label_prefix: target.label_prefix,
        }),
        backends: (!nodes.is_empty()).then_some(Backends { nodes, complete: order.backends_complete }),
        patience: Duration::from_millis(order.patience_ms.into()),
    };
    let trial = match (order.read, order.load) {
        (Some(read), Some(load)) => Some(Trial { read: read.try_into()?, load: load.try_into()? }),
        _ => None,
    };
    Ok((scope, trial))
}

fn source_to_wire(source: &SourceScope) -> pb::CheckSource {
    let kind = match source.kind {
        SourceKind::Mysql => pb::SourceKind::Mysql,
        SourceKind::Starrocks => pb::SourceKind::Starrocks,
    };
    pb::CheckSource {
        datasource: source.datasource.clone(),
        kind: kind.into(),
        database: source.database.clone().unwrap_or_default(),
        tables: source.tables.clone(),
    }
}

fn source_of_wire(source: pb::CheckSource) -> Result<SourceScope, WireError> {
    let kind = match source.kind() {
        pb::SourceKind::Mysql => SourceKind::Mysql,
        pb::SourceKind::Starrocks => SourceKind::Starrocks,
        pb::SourceKind::Unspecified => return Err(bad("check.source.kind", "is unknown")),
    };
    Ok(SourceScope {
        kind,
        datasource: source.datasource,
        database: optional(&source.database),
        tables: source.tables,
    })
}

impl From<&Finding> for pb::Finding {
    fn from(finding: &Finding) -> Self {
        Self {
            part: finding.part.as_str().to_owned(),
            datasource: finding.datasource.clone(),
            address: finding.address.clone(),
            via: finding.via.clone(),
            outcome: finding.outcome.as_str().to_owned(),
            milliseconds: finding.took.as_secs_f64() * 1000.0,
            told: finding.told.clone(),
            error: finding.problem.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<pb::Finding> for Finding {
    type Error = WireError;

    fn try_from(finding: pb::Finding) -> Result<Self, Self::Error> {
        Ok(Self {
            part: Part::parse(&finding.part).ok_or_else(|| bad("finding.part", "is unknown"))?,
            datasource: finding.datasource,
            address: finding.address,
            via: finding.via,
            outcome: Outcome::parse(&finding.outcome),
            took: Duration::try_from_secs_f64(finding.milliseconds / 1000.0).unwrap_or_default(),
            told: finding.told,
            problem: finding.error.map(Into::into),
        })
    }
}

/// A worker's answer.
pub fn check_report(worker_id: &str, check_id: &str, findings: &Findings) -> pb::ReportCheckRequest {
    pb::ReportCheckRequest {
        worker_id: worker_id.to_owned(),
        check_id: check_id.to_owned(),
        findings: findings.list.iter().map(Into::into).collect(),
        notes: findings.notes.clone(),
    }
}

/// What a newer worker found in parts that we do not know is left out.
pub fn findings(report: pb::ReportCheckRequest) -> Findings {
    let list = report.findings.into_iter().filter_map(|finding| finding.try_into().ok()).collect();
    Findings { list, notes: report.notes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Code, Problem};

    #[test]
    fn an_order_and_its_answer_arrive_as_they_left() {
        let scope = Scope {
            sources: vec![SourceScope {
                kind: SourceKind::Mysql,
                datasource: "shop".into(),
                database: None,
                tables: vec!["a".into(), "b".into()],
            }],
            target: Some(TargetScope {
                datasource: "warehouse".into(),
                database: Some("dw".into()),
                table: "t".into(),
                load_urls: vec!["http://fe:8030".into()],
                warehouse: None,
                label_prefix: "sl".into(),
            }),
            backends: Some(Backends {
                nodes: vec![Backend { address: "be:8040".into(), alive: true }],
                complete: true,
            }),
            patience: Duration::from_secs(30),
        };
        let order = check_order("c1", &scope, None);
        assert_eq!(check_scope(order).expect("a whole order"), (scope, None));

        let finding = Finding {
            part: Part::Backend,
            datasource: "warehouse".into(),
            address: "be:8040".into(),
            via: "10.0.0.1:18040".into(),
            outcome: Outcome::Refused,
            took: Duration::from_millis(7),
            told: String::new(),
            problem: Some(Problem::new(Code::BackendUnreachable, "refused").at("be:8040")),
        };
        let told = Findings { list: vec![finding], notes: vec!["a note".into()] };
        assert_eq!(findings(check_report("w1", "c1", &told)), told);
    }
}
