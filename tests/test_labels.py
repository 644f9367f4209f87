"""Labels of a file, by the ids of the business, through the command line."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from conftest import QUICK, Cli

from loop.deploying import deployer
from loop.log.records import RecordWriter, prediction_line, read_labels


def test_labels_of_a_file_go_on_record_by_own_ids(cli: Cli, tmp_path: Path) -> None:
    rows = pd.DataFrame({"customer": [f"{n:05}" for n in range(400)], "spend": range(400)})
    rows["churned"] = [("yes" if n % 7 else "no") if n > 200 else ("no" if n % 5 else "yes") for n in range(400)]
    rows.to_csv(tmp_path / "shop.csv", index=False)
    config = tmp_path / "shop.yaml"
    config.write_text(
        f"name: shop\ndata: {{source: {tmp_path}/shop.csv, target: churned, id: [customer]}}\n"
        "model: {estimator: sklearn.linear_model.LogisticRegression}\n"
    )
    labels = tmp_path / "labels.csv"
    labels.write_text("customer;churned\n00001;yes\n00002;maybe\n")
    early = cli("--labels", str(labels), "--config", str(config))
    assert early.code == 2
    assert "'shop' has no champion, so nothing was predicted" in early.err
    assert cli("--pipeline", "training", "--config", str(config), *QUICK).code == 0
    log = Path(deployer.active().log("shop"))
    header = {"model": "shop", "version": 1, "release": "v1-0", "kind": "predictions"}
    writer = RecordWriter(log / "predictions", {**header, "columns": ["spend", "customer"], "classes": ["no", "yes"]})
    now = datetime.now(UTC)
    writer.append(prediction_line("000000000001-000000", now, [[5.0, "00001"]], [0.5], ["no"]), now)
    writer.close()
    refused = cli("--labels", str(labels), "--config", str(config))
    assert refused.code == 2
    assert "label 2: 'churned' needs one of no, yes, it is 'maybe'" in refused.err
    assert read_labels(log / "labels").empty, "a file is taken whole or not at all"
    labels.write_text("customer;churned\n00001;yes\n00399;no\n")
    taken = cli("--labels", str(labels), "--config", str(config))
    assert taken.code == 0, taken.err
    said = " ".join(taken.out.split())
    assert "1 of 2 are on record, for the newest prediction of each id" in said
    assert "next python run.py --pipeline feedback --config" in said
    assert "unknown 1: no prediction with this customer" in said
    found = read_labels(log / "labels")
    assert found[["prediction_id", "label"]].values.tolist() == [["000000000001-000000-0", "yes"]]
    labels.write_text("customer;churned\n00398;yes\n")
    nobodys = cli("--labels", str(labels), "--config", str(config))
    assert nobodys.code == 2
    assert "none of its 1 labels can be taken: no prediction with this customer" in nobodys.err
    labels.write_text("prediction_id;churned\n000000000001-000000-0;no\n9f86d081884c-7d659a2feaa0-0;yes\n")
    taken = cli("--labels", str(labels), "--config", str(config))
    assert "1 of 2 are on record" in " ".join(taken.out.split())
    assert "unknown 1: no prediction with this prediction_id is on record" in " ".join(taken.out.split())
    missing = cli("--labels", str(tmp_path / "none.csv"), "--config", str(config))
    assert (missing.code, "none.csv' of labels" in missing.err) == (2, True)
    listed = tmp_path / "audit.csv"
    off = cli("--audit", str(listed), "--config", str(config))
    assert (off.code, "feedback.audit is 0" in off.err) == (2, True)
    now = datetime.now(UTC)
    writer.append(prediction_line("000000000001-000001", now, [[6.0, "00002"]], [0.5], ["no"]), now)
    writer.close()
    audit = cli("--audit", str(listed), "--config", str(config), "--set", "feedback.audit=1")
    assert audit.code == 0, audit.err
    assert "1 of 2 predictions of the sample are labelled" in " ".join(audit.out.split())
    table = pd.read_csv(listed, dtype=str)
    assert table[["prediction_id", "of"]].values.tolist() == [["000000000001-000001-0", "customer 00002"]]
    table.assign(label="no").to_csv(listed, index=False)
    assert cli("--labels", str(listed), "--config", str(config)).code == 0
    assert len(read_labels(log / "labels")) == 2
