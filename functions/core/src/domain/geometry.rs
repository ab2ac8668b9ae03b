//! Picture sizes: never above the source, even, square pixels, portrait by the short side.

use serde::{Deserialize, Serialize};

use super::spec::Quality;

/// Largest short side of a rendition for which no quality was asked.
const DEFAULT_MAX_SHORT_SIDE_PX: u32 = 1_080;
/// H.264 level 6.2 allows no larger side in practice, and neither do common decoders.
const MAX_LONG_SIDE_PX: u32 = 8_192;

/// A picture's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
}

impl Size {
    /// The smaller side.
    #[must_use]
    pub fn short_side_px(self) -> u32 {
        self.width_px.min(self.height_px)
    }

    /// Pixels of a picture.
    #[must_use]
    pub fn pixels(self) -> u64 {
        u64::from(self.width_px) * u64::from(self.height_px)
    }

    fn long_side_px(self) -> u32 {
        self.width_px.max(self.height_px)
    }

    /// This size within bounds for its two sides, with its aspect kept, never enlarged; both sides even, at least 2.
    fn within(self, short_px: u32, long_px: u32) -> Self {
        let ratio = f64::min(
            f64::from(short_px) / f64::from(self.short_side_px().max(1)),
            f64::from(long_px) / f64::from(self.long_side_px().max(1)),
        )
        .min(1.0);
        Self {
            width_px: even(f64::from(self.width_px) * ratio, self.width_px),
            height_px: even(f64::from(self.height_px) * ratio, self.height_px),
        }
    }
}

/// The nearest even number, as 4:2:0 chroma needs it, that is not above `source_px`; at least 2.
fn even(px: f64, source_px: u32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "picture sides are small and positive"
    )]
    let half = (px / 2.0).round() as u32;
    half.min(source_px / 2).max(1) * 2
}

/// The size at which a picture is shown: pixels made square by the sample aspect ratio, then turned.
#[must_use]
pub fn display_size(coded: Size, sample_aspect: (u32, u32), rotation_degrees: i32) -> Size {
    let (num, den) = sample_aspect;
    let mut shown = coded;
    if num > 0 && den > 0 && num != den {
        let stretched = f64::from(coded.width_px) * f64::from(num) / f64::from(den);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded just above"
        )]
        let width_px = stretched.round().clamp(1.0, f64::from(u16::MAX)) as u32;
        shown.width_px = width_px;
    }
    if rotation_degrees.rem_euclid(180) == 90 {
        std::mem::swap(&mut shown.width_px, &mut shown.height_px);
    }
    shown
}

/// The size of a rendition.
#[must_use]
pub fn rendition_size(display: Size, quality: Option<Quality>) -> Size {
    let short_px = quality.map_or(DEFAULT_MAX_SHORT_SIDE_PX, Quality::short_side_px);
    display.within(short_px, MAX_LONG_SIDE_PX)
}

/// The size of a thumbnail: at most 360 px on its short and 640 px on its long side.
#[must_use]
pub fn thumbnail_size(display: Size) -> Size {
    display.within(360, 640)
}

/// The peak bit rate of a rendition that no option limits, in bits a second: the ladder that `veryfast` needs for
/// pictures without visible loss, by the short side.
#[must_use]
pub fn default_max_bitrate_bps(size: Size) -> u64 {
    match size.short_side_px() {
        0..=360 => 800_000,
        361..=480 => 1_400_000,
        481..=720 => 2_800_000,
        721..=1_080 => 5_000_000,
        1_081..=1_440 => 9_000_000,
        _ => 16_000_000,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn size(width_px: u32, height_px: u32) -> Size {
        Size { width_px, height_px }
    }

    #[test]
    fn rungs_are_named_by_the_short_side() {
        assert_eq!(
            rendition_size(size(1_920, 1_080), Some(Quality::P720)),
            size(1_280, 720)
        );
        assert_eq!(
            rendition_size(size(1_080, 1_920), Some(Quality::P720)),
            size(720, 1_280)
        );
        assert_eq!(rendition_size(size(3_840, 2_160), None), size(1_920, 1_080));
        assert_eq!(rendition_size(size(640, 360), Some(Quality::P1080)), size(640, 360));
        assert_eq!(rendition_size(size(853, 481), None), size(852, 480));
        assert_eq!(rendition_size(size(1_920, 1_080), Some(Quality::P480)), size(854, 480));
        assert_eq!(rendition_size(size(1, 1), None), size(2, 2));
    }

    #[test]
    fn what_is_shown_decides() {
        assert_eq!(display_size(size(720, 576), (16, 11), 0), size(1_047, 576));
        assert_eq!(display_size(size(1_920, 1_080), (1, 1), -90), size(1_080, 1_920));
        assert_eq!(display_size(size(1_920, 1_080), (0, 1), 180), size(1_920, 1_080));
    }

    proptest! {
        #[test]
        fn renditions_are_even_and_never_above_the_source(
            w in 1_u32..16_384, h in 1_u32..16_384, q in prop::option::of(prop::sample::select(Quality::ALL))
        ) {
            let out = rendition_size(size(w, h), q);
            prop_assert!(out.width_px.is_multiple_of(2) && out.height_px.is_multiple_of(2));
            prop_assert!(out.width_px <= w.max(2) && out.height_px <= h.max(2));
            prop_assert!(out.width_px <= MAX_LONG_SIDE_PX && out.height_px <= MAX_LONG_SIDE_PX);
        }
    }
}
