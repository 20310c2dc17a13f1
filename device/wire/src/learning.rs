//! Heads and what they are measured by, as messages carry them: figures only, no samples.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, SampleId, SpaceId};
use crate::label::Label;

/// Which head to train or evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadChoice {
    /// Nearest class mean, centred.
    Ncm,
    /// Ridge regression on one-hot targets.
    Ridge,
    /// The better of [`HeadKind::Ridge`] and [`HeadKind::Lda`] by leave-one-session-out; where samples per class are uneven,
    /// [`HeadKind::Ncm`] unless one of these is clearly better.
    Auto,
    /// Linear discriminant analysis with a shared, shrunk covariance.
    Lda,
    /// Softmax regression.
    Logistic,
    /// Nearest neighbours.
    Knn,
    /// Ridge regression on a random projection with a rectifier.
    Rp,
    /// Nearest class mean in Euclidean distance.
    NcmEuclidean,
    /// Nearest class mean, centred, of trimmed means.
    NcmTrimmed,
}

impl HeadChoice {
    /// Every choice once, [`Self::Auto`] last.
    pub fn all() -> impl Iterator<Item = Self> {
        HeadKind::ALL.into_iter().map(HeadKind::choice).chain([Self::Auto])
    }

    /// The kind that is named; None for [`Self::Auto`].
    pub fn named(self) -> Option<HeadKind> {
        HeadKind::ALL.into_iter().find(|kind| kind.choice() == self)
    }
}

/// Kind of a trained head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HeadKind {
    /// Nearest class mean, centred.
    Ncm,
    /// Ridge regression on one-hot targets.
    Ridge,
    /// Linear discriminant analysis with a shared, shrunk covariance.
    Lda,
    /// Softmax regression.
    Logistic,
    /// Nearest neighbours.
    Knn,
    /// Ridge regression on a random projection with a rectifier.
    Rp,
    /// Nearest class mean in Euclidean distance.
    NcmEuclidean,
    /// Nearest class mean, centred, of trimmed means.
    NcmTrimmed,
}

impl HeadKind {
    /// Every kind once.
    pub const ALL: [Self; 8] =
        [Self::Ncm, Self::Ridge, Self::Lda, Self::Logistic, Self::Knn, Self::Rp, Self::NcmEuclidean, Self::NcmTrimmed];

    /// What names it.
    pub fn choice(self) -> HeadChoice {
        match self {
            Self::Ncm => HeadChoice::Ncm,
            Self::Ridge => HeadChoice::Ridge,
            Self::Lda => HeadChoice::Lda,
            Self::Logistic => HeadChoice::Logistic,
            Self::Knn => HeadChoice::Knn,
            Self::Rp => HeadChoice::Rp,
            Self::NcmEuclidean => HeadChoice::NcmEuclidean,
            Self::NcmTrimmed => HeadChoice::NcmTrimmed,
        }
    }

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ncm => "ncm",
            Self::Ridge => "ridge",
            Self::Lda => "lda",
            Self::Logistic => "logistic",
            Self::Knn => "knn",
            Self::Rp => "rp",
            Self::NcmEuclidean => "ncm-euclidean",
            Self::NcmTrimmed => "ncm-trimmed",
        }
    }
}

/// Why `auto` took what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChoiceReason {
    /// The user named the head.
    Named,
    /// Best balanced accuracy by leave-one-session-out.
    BestBySession,
    /// Best balanced accuracy by leave-one-out, because sessions leave too few samples to compare.
    BestByOne,
    /// Some class has one sample only, or nothing can be left out: ridge where samples per class are even, else nearest
    /// class mean.
    OneShot,
    /// The head came without its set.
    Pushed,
}

/// A trained head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadInfo {
    /// What it is.
    pub kind: HeadKind,
    /// BLAKE3 of its bytes: its version.
    pub digest: Digest,
    /// Space it works in.
    pub space: SpaceId,
    /// Digest of the set it was trained on.
    pub set_digest: Digest,
    /// Samples it was trained on.
    pub n_samples: u32,
    /// Classes it knows.
    pub n_classes: u32,
    /// Relative strength of ridge and softmax regression, shrinkage of discriminant analysis; `None` for heads without one.
    pub lambda_rel: Option<f64>,
    /// Why this head.
    pub reason: ChoiceReason,
    /// Balanced accuracy in 0..1 behind the choice; `None` where none was measured.
    pub balanced_accuracy: Option<f64>,
    /// The set has changed since.
    pub stale: bool,
    /// Time to train, in µs; 0 when it was not trained now.
    pub train_us: u32,
}

/// One prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Best class; `None` if rejected as unknown.
    pub label: Option<Label>,
    /// Rejected as unknown; `None` where no rejection is calibrated.
    pub unknown: Option<bool>,
    /// Score of the best class, in the head's own units.
    pub score: f64,
    /// Calibrated probability of the best class in 0..1; `None` where none is calibrated.
    pub probability: Option<f64>,
    /// Conformal p-value; `None` where none is calibrated.
    pub p_value: Option<f64>,
    /// Digest of the head.
    pub head: Digest,
    /// Space of the head.
    pub space: SpaceId,
    /// Time to embed, in µs; 0 if an embedding came along.
    pub embed_us: u32,
    /// Time of the head, in µs.
    pub head_us: u32,
}

/// One class's score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// The class.
    pub label: Label,
    /// In the head's own units.
    pub score: f64,
}

/// How a head rejects unknown inputs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RejectionInfo {
    /// Samples that the rate is calibrated on.
    pub n: u32,
    /// Rate of false rejects promised; `None`: nothing is rejected.
    pub rate: Option<f64>,
    /// Negatives in the set.
    pub n_negatives: u32,
    /// Negatives that the rate rejects; 0 without a rate.
    pub n_negatives_rejected: u32,
    /// Least rate that rejects nine of ten negatives; `None` without negatives, or if none does.
    pub negatives_rate: Option<f64>,
}

/// Two heads on the samples of the classes that both know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadComparison {
    /// Samples asked about.
    pub n: u32,
    /// Right by the head of before.
    pub n_correct_old: u32,
    /// Right by the new head among the classes of the old one.
    pub n_correct_new: u32,
}

/// What a review looked at and found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewCounts {
    /// Class samples whose label was looked at; of the others nothing of their class would be left.
    pub n_assessed: u32,
    /// Samples that are taken for another class.
    pub n_doubtful: u32,
    /// Samples among them whose label is suspected to be wrong.
    pub n_suspected: u32,
    /// Samples compared with each other.
    pub n_compared: u32,
    /// Pairs of near duplicates that differ in label or session.
    pub n_duplicates: u32,
}

/// A sample that is taken for another class by all the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoubtfulSample {
    /// The sample.
    pub id: SampleId,
    /// What it says.
    pub label: Label,
    /// What it looks like.
    pub looks_like: Label,
    /// Score of that class minus score of its own, in cosine units; over 0.
    pub margin: f64,
    /// The margin is so large that the label is suspected.
    pub suspected: bool,
}

/// Two samples that are nearly the same and differ in label or session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DuplicatePair {
    /// The one with the smaller id.
    pub a: SampleId,
    /// The other.
    pub b: SampleId,
    /// Cosine of their embeddings.
    pub cosine: f64,
    /// They say different things.
    pub labels_differ: bool,
}

/// What was left out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// All samples of one session.
    LeaveOneSessionOut,
    /// One input at a time, because sessions leave under 80 % of the samples to count.
    LeaveOneOut,
}

/// Figures of an evaluation; fractions in 0..1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationSummary {
    /// Head evaluated.
    pub kind: HeadKind,
    /// What was left out together.
    pub protocol: Protocol,
    /// Samples that count.
    pub n: u32,
    /// Samples that do not count: their class has no sample outside the fold.
    pub n_skipped: u32,
    /// Folds.
    pub n_folds: u32,
    /// Right ones among `n`.
    pub n_correct: u32,
    /// Right ones / n.
    pub accuracy: f64,
    /// Lower end of the 95 % Wilson interval of the accuracy.
    pub accuracy_low: f64,
    /// Upper end of it.
    pub accuracy_high: f64,
    /// Mean over classes of right ones / n of the class.
    pub balanced_accuracy: f64,
}

/// Counts of one class in an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCounts {
    /// The class.
    pub label: Label,
    /// Its live samples.
    pub n_samples: u32,
    /// Its sessions.
    pub n_sessions: u32,
    /// Samples that count.
    pub n: u32,
    /// Right ones among them.
    pub n_correct: u32,
}

/// One cell of a confusion matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionCell {
    /// Index of the true class.
    pub truth: u16,
    /// Index of the predicted class.
    pub predicted: u16,
    /// How often.
    pub count: u32,
}
