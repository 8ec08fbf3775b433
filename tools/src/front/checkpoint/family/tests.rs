//! Checkpoints made up of names and sizes: what is recognised, and what is refused by which tensor.

use super::*;
use crate::front::checkpoint::Entry;
use crate::front::description;
use crate::front::graph::{Constant, Data, elements};

/// Tensors of ones by name.
#[derive(Clone, Default)]
struct Tensors(Vec<(String, Vec<usize>)>);

impl Tensors {
    fn add(mut self, name: &str, dims: &[usize]) -> Self {
        self.0.push((name.into(), dims.to_vec()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|(tensor, _)| tensor != name);
        self
    }

    fn norm(self, name: &str, channels: usize) -> Self {
        ["weight", "bias", "running_mean", "running_var"]
            .iter()
            .fold(self, |tensors, part| tensors.add(&format!("{name}.{part}"), &[channels]))
    }

    fn conv(self, name: &str, norm: &str, dims: [usize; 4]) -> Self {
        self.add(&format!("{name}.weight"), &dims).norm(norm, dims[0])
    }

    /// Stages of basic blocks, the first of each with this shortcut where the channels change.
    fn resnet(stem: usize, stages: &[(usize, usize)], shortcut: Option<&str>, head: &str) -> Self {
        let mut tensors = Tensors::default().conv("conv1", "bn1", [2, 3, stem, stem]);
        let mut channels = 2;
        for (stage, &(blocks, width)) in (1..).zip(stages) {
            for block in 0..blocks {
                let block = format!("layer{stage}.{block}");
                let part = |part: &str| format!("{block}.{part}");
                tensors = tensors.conv(&part("conv1"), &part("bn1"), [width, channels, 3, 3]).conv(
                    &part("conv2"),
                    &part("bn2"),
                    [width, width, 3, 3],
                );
                if let Some(name) = shortcut.filter(|_| channels != width) {
                    let [conv, norm] = [0, 1].map(|index| part(&format!("{name}.{index}")));
                    tensors = tensors.conv(&conv, &norm, [width, channels, 1, 1]);
                }
                channels = width;
            }
        }
        tensors.add(&format!("{head}.weight"), &[10, channels]).add(&format!("{head}.bias"), &[10])
    }

    fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        for (name, dims) in &self.0 {
            let ones = Data::Float(vec![1.0; elements(dims).unwrap()]);
            checkpoint.insert(name, Entry::Float(Constant::new(dims.clone(), ones).unwrap()));
        }
        checkpoint.without_wrappers()
    }

    fn recognize(&self) -> Result<Family, Refusal> {
        recognize(&mut self.checkpoint(), "w.pth", None)
    }

    /// The note on what was recognised; the description builds the layers.
    fn note(&self) -> String {
        let mut checkpoint = self.checkpoint();
        let family = recognize(&mut checkpoint, "w.pth", None).unwrap_or_else(|refusal| panic!("{refusal}"));
        let description = description::parse(family.description.as_bytes()).unwrap();
        description.network(&checkpoint, 1 << 20).unwrap_or_else(|refusal| panic!("{refusal}"));
        let [note, _] = family.notes;
        note.trim_start_matches("recognised by its tensors' names: ").to_string()
    }

    fn refused(&self, kind: ErrorKind, message: &str) -> Refusal {
        let Err(refusal) = self.recognize() else { panic!("is recognised") };
        assert_eq!(refusal.kind, kind, "{refusal}");
        assert!(refusal.to_string().contains(message), "{refusal}");
        assert!(refusal.help.contains("TOML") && refusal.help.contains("stage = ["), "{refusal}");
        refusal
    }
}

const CIFAR: [(usize, usize); 3] = [(3, 2), (3, 4), (3, 8)];

#[test]
fn both_families_are_recognised() {
    let strides = "; stride 2 at the head of all stages but the first";
    assert_eq!(
        Tensors::resnet(3, &CIFAR, None, "linear").note(),
        format!("CIFAR ResNet-20: 3 stages of 3 basic blocks, 2/4/8 channels, option A shortcuts{strides}")
    );
    assert_eq!(
        Tensors::resnet(3, &[(2, 2), (2, 4), (2, 8), (2, 16)], Some("shortcut"), "linear").note(),
        format!(
            "CIFAR ResNet-18: 4 stages of 2 basic blocks, 2/4/8/16 channels, projection shortcuts{strides}"
        )
    );
    assert_eq!(
        Tensors::resnet(7, &[(3, 2), (4, 4), (6, 8), (3, 16)], Some("downsample"), "fc").note(),
        format!(
            "ResNet-34: 4 stages of 3/4/6/3 basic blocks, 2/4/8/16 channels, projection shortcuts{strides}"
        )
    );
    let one = Tensors::resnet(3, &[(1, 2)], None, "fc").note();
    assert_eq!(one, "CIFAR ResNet-4: 1 stage of 1 basic block, 2 channels");
}

#[test]
fn modules_around_the_network_are_left_out() {
    let mut wrapped = Tensors::resnet(3, &CIFAR, None, "fc");
    wrapped.0.iter_mut().for_each(|(name, _)| *name = format!("module.model.backbone.{name}"));
    assert!(wrapped.note().starts_with("CIFAR ResNet-20"));
    wrapped.0[0].0 = "else.weight".into();
    wrapped.refused(ErrorKind::Format, "no network is recognised by its tensors' names");
}

#[test]
fn the_tensor_that_does_not_fit_is_named() {
    let whole = || Tensors::resnet(3, &CIFAR, Some("downsample"), "fc");
    whole().without("conv1.weight").refused(ErrorKind::Format, "'bn1.bias', 'bn1.running_mean'");
    Tensors::default().refused(ErrorKind::Format, "has no tensors of floats");
    let five = Tensors::resnet(5, &CIFAR, None, "fc");
    five.refused(ErrorKind::Format, "tensor 'conv1.weight': has sizes [2, 3, 5, 5]");
    let mut preactivation = whole();
    preactivation.0.retain(|(name, _)| !name.starts_with("bn1."));
    preactivation.refused(ErrorKind::Format, "tensor 'conv1.weight': has no batch norm 'bn1' after it");
    whole().without("fc.weight").refused(ErrorKind::MissingTensor, "'fc.weight' or 'linear.weight'");
    let excited = whole().add("layer1.0.se.fc1.weight", &[1, 2]);
    excited.refused(ErrorKind::UnusedTensor, "tensor 'layer1.0.se.fc1.weight': does not fit into a ResNet");
    let two_heads = whole().add("linear.weight", &[10, 8]);
    two_heads.refused(ErrorKind::UnusedTensor, "tensor 'linear.weight'");
    let mixed = whole().without("layer3.0.downsample.0.weight");
    let refusal = mixed.refused(ErrorKind::MissingTensor, "no tensor 'layer3.0.downsample.0.weight'");
    assert!(refusal.help.contains(r#"weights = "w.pth""#), "{refusal}");
}

#[test]
fn descriptions_of_what_was_recognised_can_be_read() {
    let family = Tensors::resnet(7, &CIFAR, None, "fc").recognize().unwrap();
    let expected = r#"    weights = "w.pth"
    input = { height = 224, width = 224, channels = 3 }
    stage = [
        { conv = "conv1", stride = 2 },
        { pool = "max", kernel = 3, stride = 2, padding = 1 },
        { blocks = "layer1" },
        { blocks = "layer2", stride = 2 },
        { blocks = "layer3", stride = 2 },
        { pool = "global-average" },
        { dense = "fc" },
    ]"#;
    assert_eq!(family.description, expected);
    let mut odd = Tensors::resnet(3, &CIFAR, None, "fc").checkpoint();
    let family = recognize(&mut odd, "a\"b\\c\n.pth", "16x24".parse().ok()).unwrap();
    assert_eq!(description::parse(family.description.as_bytes()).unwrap().weights(), "a\"b\\c\n.pth");
    assert!(family.description.contains("height = 16, width = 24"));
}
