"""The doctor: what the files of a training run say about why it does not learn. Rules are plain functions in lists."""

from phi_lab.report.doctor.finding import Finding as Finding
from phi_lab.report.doctor.folders import Checked as Checked
from phi_lab.report.doctor.folders import check_folder as check_folder
from phi_lab.report.doctor.folders import check_stage as check_stage
from phi_lab.report.doctor.rules import all_rules as all_rules
from phi_lab.report.doctor.rules import check_metrics as check_metrics
from phi_lab.report.doctor.rules import check_pairs as check_pairs
from phi_lab.report.doctor.rules import check_rollouts as check_rollouts
