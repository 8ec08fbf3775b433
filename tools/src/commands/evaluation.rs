//! The figures of an evaluation: counted image by image, put together, shown.

use std::collections::BTreeMap;

use serde::Serialize;
use skipstone::Model;

use super::has_softmax;
use super::text::{grouped, lines, percent, printable, shortened, table};

/// Maximum number of classes whose confusion matrix fits on a terminal.
const MATRIX_CLASSES: usize = 12;

/// Maximum number of classes whose confusion matrix is in the JSON form.
const JSON_CLASSES: usize = 1000;

/// Confusions that are named if the matrix does not fit.
const WORST: usize = 10;

/// What is counted over images.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tally {
    images: u64,
    labelled: u64,
    correct: u64,
    float_correct: u64,
    agreeing: u64,
    /// Images by label and answer.
    confusion: BTreeMap<(usize, usize), u64>,
    /// Scores that were compared with the float network's.
    compared: u64,
    squared_error: f64,
    max_error: f64,
}

impl Tally {
    /// Counts an image: its scores, the float network's, its label.
    pub(crate) fn add(&mut self, scores: &[f32], float: Option<&[f32]>, label: Option<usize>) {
        let answer = best(scores);
        let float_answer = float.map(best);
        self.images += 1;
        self.agreeing += u64::from(float_answer == Some(answer));
        if let Some(label) = label {
            self.labelled += 1;
            self.correct += u64::from(label == answer);
            self.float_correct += u64::from(float_answer == Some(label));
            *self.confusion.entry((label, answer)).or_default() += 1;
        }
        for (score, float) in scores.iter().zip(float.unwrap_or_default()) {
            let error = f64::from(score - float).abs();
            self.compared += 1;
            self.squared_error += error * error;
            self.max_error = self.max_error.max(error);
        }
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn merge(&mut self, other: &Tally) {
        self.images += other.images;
        self.labelled += other.labelled;
        self.correct += other.correct;
        self.float_correct += other.float_correct;
        self.agreeing += other.agreeing;
        for (pair, count) in &other.confusion {
            *self.confusion.entry(*pair).or_default() += count;
        }
        self.compared += other.compared;
        self.squared_error += other.squared_error;
        self.max_error = self.max_error.max(other.max_error);
    }
}

/// Index of the best score; of equal ones the first, as on the board.
fn best(scores: &[f32]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = index;
        }
    }
    best
}

/// Softmax in double precision.
pub(crate) fn float_probabilities(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

/// An evaluation's figures; its JSON form is what `eval --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Evaluation {
    network: String,
    images: u64,
    labelled: u64,
    correct: u64,
    /// Percent.
    top1: Option<f64>,
    labels: Vec<String>,
    /// Images by label (rows) and answer (columns).
    confusion: Option<Vec<Vec<u64>>>,
    #[serde(flatten)]
    against: Option<Against>,
}

/// How the blob's answers compare with the float network's.
#[derive(Debug, Serialize)]
struct Against {
    /// Percent.
    float_top1: Option<f64>,
    float_correct: u64,
    /// Percent.
    agreement: f64,
    scores: &'static str,
    score_rmse: f64,
    score_max_error: f64,
}

impl Evaluation {
    /// The figures of `tally`, gathered with the model and, if `against`, the float network.
    pub(crate) fn new(model: &Model<'_>, against: bool, tally: &Tally) -> Self {
        let Tally { images, labelled, correct, float_correct, .. } = *tally;
        let top1 = |correct| (labelled > 0).then(|| percent(correct, labelled));
        let classes = model.classes();
        let matrix = || {
            let mut matrix = vec![vec![0; classes]; classes];
            tally.confusion.iter().for_each(|((label, answer), count)| matrix[*label][*answer] = *count);
            matrix
        };
        Evaluation {
            network: model.name().to_owned(),
            images,
            labelled,
            correct,
            top1: top1(correct),
            labels: model.labels().map(str::to_owned).collect(),
            confusion: (labelled > 0 && classes <= JSON_CLASSES).then(matrix),
            against: against.then(|| Against {
                float_top1: top1(float_correct),
                float_correct,
                agreement: percent(tally.agreeing, images),
                scores: if has_softmax(model) { "probabilities" } else { "logits" },
                score_rmse: (tally.squared_error / tally.compared.max(1) as f64).sqrt(),
                score_max_error: tally.max_error,
            }),
        }
    }

    /// Percent of the labelled images that the blob classifies correctly.
    pub(crate) fn top1(&self) -> Option<f64> {
        self.top1
    }

    /// Percent of the labelled images that the float network classifies correctly.
    pub(crate) fn float_top1(&self) -> Option<f64> {
        self.against.as_ref()?.float_top1
    }

    /// Percent of the images to which both give the same answer.
    pub(crate) fn agreement(&self) -> Option<f64> {
        self.against.as_ref().map(|against| against.agreement)
    }

    /// The figures for people.
    pub(crate) fn describe(&self, tally: &Tally) -> String {
        let mut text = format!("{}: {} images\n\n", printable(&self.network), grouped(self.images));
        text += &self.figures(tally);
        if self.labelled > 0 {
            text += &match &self.confusion {
                Some(matrix) if matrix.len() <= MATRIX_CLASSES => self.matrix(matrix),
                _ => self.worst(tally),
            };
        }
        text
    }

    fn figures(&self, tally: &Tally) -> String {
        let mut table = table(&["", "", ""], "<><");
        let of = |part: u64, whole: u64| format!("{} of {}", grouped(part), grouped(whole));
        if let Some(top1) = self.top1 {
            table.add_row(["top-1".into(), format!("{top1:.2} %"), of(self.correct, self.labelled)]);
        }
        if let Some(against) = &self.against {
            if let Some(top1) = against.float_top1 {
                let count = of(against.float_correct, self.labelled);
                table.add_row(["float top-1".into(), format!("{top1:.2} %"), count]);
            }
            let count = of(tally.agreeing, self.images);
            table.add_row(["agreement".into(), format!("{:.2} %", against.agreement), count]);
            let errors = [("score RMSE", against.score_rmse), ("largest error", against.score_max_error)];
            for (name, error) in errors {
                table.add_row([name.into(), format!("{error:.4}"), against.scores.into()]);
            }
        }
        lines(&table).trim_start_matches('\n').to_owned()
    }

    fn label(&self, class: usize) -> String {
        let number = class.to_string();
        match self.labels.get(class) {
            Some(label) if *label != number => format!("{number} {}", shortened(label)),
            _ => number,
        }
    }

    /// The whole matrix, a row for each label.
    fn matrix(&self, matrix: &[Vec<u64>]) -> String {
        let classes = 0..matrix.len();
        let mut header = vec!["label, answer".to_owned()];
        header.extend(classes.clone().map(|class| class.to_string()));
        header.push("right".into());
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut table = table(&header, &("<".to_owned() + &">".repeat(matrix.len() + 1)));
        for class in classes {
            let row = &matrix[class];
            let total: u64 = row.iter().sum();
            let mut cells = vec![self.label(class)];
            cells.extend(row.iter().map(|count| if *count == 0 { "·".into() } else { count.to_string() }));
            let right = format!("{:.1} %", percent(row[class], total));
            cells.push(if total == 0 { String::new() } else { right });
            table.add_row(cells);
        }
        format!("\n{}", lines(&table))
    }

    /// The most frequent confusions.
    fn worst(&self, tally: &Tally) -> String {
        let wrong = tally.confusion.iter().filter(|((label, answer), _)| label != answer);
        let mut wrong: Vec<_> = wrong.collect();
        wrong.sort_by_key(|(pair, count)| (std::cmp::Reverse(**count), **pair));
        let mut table = table(&["most confused", "taken for", "images"], "<<>");
        for ((label, answer), count) in wrong.into_iter().take(WORST) {
            table.add_row([self.label(*label), self.label(*answer), grouped(*count)]);
        }
        format!("\n{}", lines(&table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores, the float network's scores, and the label of an image.
    type Answer<'a> = (&'a [f32], Option<&'a [f32]>, Option<usize>);

    fn tally(images: &[Answer<'_>]) -> Tally {
        let mut tally = Tally::default();
        images.iter().for_each(|(scores, float, label)| tally.add(scores, *float, *label));
        tally
    }

    #[test]
    fn images_are_counted_by_label_answer_and_float_answer() {
        let tally = tally(&[
            (&[1.0, 2.0], Some(&[1.5, 2.0]), Some(1)),
            (&[3.0, 2.0], Some(&[1.0, 2.0]), Some(1)),
            (&[0.0, 0.0], Some(&[0.0, -1.0]), None),
        ]);
        assert_eq!((tally.images, tally.labelled, tally.correct), (3, 2, 1));
        assert_eq!((tally.float_correct, tally.agreeing), (2, 2));
        assert_eq!(tally.confusion, BTreeMap::from([((1, 0), 1), ((1, 1), 1)]));
        assert_eq!((tally.compared, tally.squared_error, tally.max_error), (6, 5.25, 2.0));
    }

    #[test]
    fn merging_equals_counting_in_one() {
        let images: [Answer<'_>; 3] = [
            (&[1.0, 2.0], Some(&[0.0, 1.0]), Some(0)),
            (&[1.0, 0.0], None, Some(0)),
            (&[0.5, 1.0], None, Some(1)),
        ];
        let mut merged = tally(&images[..1]);
        merged.merge(&tally(&images[1..]));
        assert_eq!(merged, tally(&images));
    }

    #[test]
    fn the_first_of_equal_scores_wins_as_on_the_board() {
        let scores = [1.0, 3.0, 3.0];
        assert_eq!(best(&scores), 1);
        assert_eq!(skipstone::Scores::new(&scores, false).top::<1>()[0].index, 1);
    }

    #[test]
    fn probabilities_sum_to_one_and_survive_large_logits() {
        let probabilities = float_probabilities(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(probabilities, [0.5, 0.5, 0.0]);
    }
}
