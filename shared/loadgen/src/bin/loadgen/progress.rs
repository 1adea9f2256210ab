//! The progress bar, on a terminal only.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use loadgen::Progress;
use loadgen::units::{duration, metric};

/// One bar for the connections, then one for the time.
#[derive(Default)]
pub struct Bar {
    bar: Option<ProgressBar>,
    connecting: bool,
    /// When the rate was last shown, and the messages by then.
    last: Option<(Instant, u64)>,
}

impl Bar {
    /// Shows how far the run has come.
    pub fn show(&mut self, progress: Progress) {
        match progress {
            Progress::Connecting { open, of } => {
                let bar = self.phase(
                    true,
                    of as u64,
                    "  connecting [{bar:30}] {human_pos}/{human_len} connections",
                );
                bar.set_position(open as u64);
            }
            Progress::Running {
                elapsed,
                of,
                messages,
            } => {
                let rate = self.rate(messages);
                let bar = self.phase(
                    false,
                    of.as_millis() as u64,
                    "  measuring  [{bar:30}] {msg}",
                );
                bar.set_position(elapsed.as_millis() as u64);
                if let Some(rate) = rate {
                    bar.set_message(format!(
                        "{}s of {}, {} messages/s",
                        elapsed.as_secs(),
                        duration(of),
                        metric(rate)
                    ));
                }
            }
            Progress::Settling => {
                if let Some(bar) = &self.bar {
                    bar.set_message("waiting for the last messages");
                }
            }
        }
    }

    /// Leaves the line to the result.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn phase(&mut self, connecting: bool, len: u64, template: &str) -> &ProgressBar {
        if self.connecting != connecting {
            self.clear();
            self.connecting = connecting;
        }
        self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(template).expect("a fixed template");
            ProgressBar::new(len).with_style(style.progress_chars("=> "))
        })
    }

    /// Messages a second since about a second ago; `None` while it is too early for another figure.
    fn rate(&mut self, messages: u64) -> Option<f64> {
        let now = Instant::now();
        let (at, before) = *self.last.get_or_insert((now, messages));
        let elapsed = now - at;
        if elapsed < Duration::from_millis(500) {
            return None;
        }
        self.last = Some((now, messages));
        Some(messages.saturating_sub(before) as f64 / elapsed.as_secs_f64())
    }
}
