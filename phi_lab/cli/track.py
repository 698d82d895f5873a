"""`phi-lab track`: send what a run has logged to TensorBoard, trackio or Weights & Biases."""

from pathlib import Path

from phi_lab.cli.options import add_command

TEACH = """
Training sends nothing anywhere: each stage writes RUN/STAGE/metrics.jsonl. This command reads these files and sends
them on: a tracker run for each stage and control, with the run's settings, a point for each logged step, and at the
last step the stage's accuracies from ladder.json, where it was measured.

  tensorboard  writes RUN/trackers/tensorboard/STAGE, in the place of what an earlier call wrote there; then
               tensorboard --logdir RUN/trackers/tensorboard
  trackio      writes to its own folder on this computer; then trackio show. TRACKIO_SPACE_ID sends it to a Space
  wandb        sends to wandb.ai, with the key of `wandb login`, this computer's name and what else wandb adds;
               WANDB_MODE=offline only writes RUN/trackers/wandb, which `wandb sync` sends later

These packages are not installed with the course: pip install tensorboard. Their environment variables hold as usual;
the project is called phi-lab unless WANDB_PROJECT or TRACKIO_PROJECT names another. A second call makes new runs in
trackio and wandb, beside those of the first."""


def add_parser(commands) -> None:
    """Add `track` and its options."""
    parser = add_command(
        commands, "track", run, "send what a run has logged to TensorBoard, trackio or Weights & Biases",
        "phi-lab track runs/first --to tensorboard --follow",
    )
    parser.description += f"\n{TEACH}"
    parser.add_argument("folder", type=Path, metavar="RUN", help="of a run that has ended, or that is training")
    parser.add_argument("--to", required=True, choices=("tensorboard", "trackio", "wandb"), help="the tracker")
    parser.add_argument("--follow", action="store_true",
                        help="look for new rows every five seconds, until no process has worked in the run for twenty "
                        "seconds, or until Ctrl-C")


def run(options) -> None:
    """Send the rows, and print a line a stage."""
    from phi_lab.report import track

    track.track(options.folder, options.to, options.follow)
