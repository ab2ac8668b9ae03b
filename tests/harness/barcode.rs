//! Frames that carry their number: painted into sources, read back from anything.
//!
//! A frame's number stands in its upper left corner as 16 square blocks, black or white, the lowest bit first. A
//! block's side is 1/40 of the picture's long side, so scaling to a rendition and turning a phone's video upright leave
//! the code where it is. Beeps belong to frames ([`crate::beeps`]), so picture and sound of one file can be held
//! against each other without a reference: see [`Frames::beeps_seconds`].
//!
//! All reading is done by ffmpeg, and as a player would: edit lists, rotation and encoder delay are applied. Times are
//! on the file's own clock, which may begin anywhere. An input is whatever ffmpeg opens: a file, a playlist, an URL.

use std::ffi::{OsStr, OsString};
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

use crate::beeps::beeps_at;
use crate::studio::{Studio, input_words, words};

/// Bits of a frame's number.
const BITS: usize = 16;
/// Blocks along the picture's long side.
const BLOCKS: usize = 40;
/// The picture that barcodes are read from: everything is scaled to it, or to it turned. A block has 16 pixels then.
const READING_SIZE_PX: (usize, usize) = (640, 360);
const READING_BLOCK_PX: usize = READING_SIZE_PX.0 / BLOCKS;
/// Part of a block's side, in each direction, that may be smeared by its neighbours.
const BLOCK_EDGE_PX: usize = 4;
/// Luma of a block that is neither black nor white: two frames were blended, or this is no barcode.
const UNREADABLE: Range<u32> = 85..170;

/// How far the picture moves before it turns back.
const PAN_PX: usize = 256;
/// Frames from one cut to the next. Odd, so that cuts meet chunk boundaries only by accident.
const SCENE_FRAMES: usize = 211;

/// The pictures of a source: a texture that moves, with cuts, and the barcode.
#[derive(Debug)]
pub(crate) struct Painter {
    size: (usize, usize),
    /// Whether the picture is stored lying and is to be shown turned clockwise by a quarter.
    turned: bool,
    luma: Vec<u8>,
    chroma: Vec<u8>,
    frame: Vec<u8>,
}

impl Painter {
    /// For pictures of a width and height as they are stored.
    pub(crate) fn new((width, height): (usize, usize), turned: bool) -> Result<Self> {
        let fits = width.is_multiple_of(2 * BLOCKS) && width * READING_SIZE_PX.1 == height * READING_SIZE_PX.0;
        ensure!(
            fits,
            "{width}x{height}: no 16:9 picture with a width in steps of {}",
            2 * BLOCKS
        );
        let (columns, rows) = (width + PAN_PX, height + PAN_PX);
        let luma = (0..rows).flat_map(|y| (0..columns).map(move |x| texture(x, y)));
        let chroma = (0..rows / 2).flat_map(|y| (0..columns / 2).map(move |x| (x / 8 + y / 6) % 40 + 108));
        Ok(Self {
            size: (width, height),
            turned,
            luma: luma.map(byte).collect(),
            chroma: chroma.map(byte).collect(),
            frame: vec![0; width * height * 3 / 2],
        })
    }

    /// The frame of a number, as planar YUV 4:2:0.
    fn paint(&mut self, number: u32) -> Result<&[u8]> {
        let index = usize::try_from(number)?;
        let (width, height) = self.size;
        let (x, y) = (pan(index * 3) & !1, pan(index * 2) & !1);
        let mirrored = (index / SCENE_FRAMES) % 2 == 1;
        let (luma, chroma) = self.frame.split_at_mut(width * height);
        let columns = width + PAN_PX;
        copy_rows(luma, width, &self.luma, columns, (x, y), mirrored);
        for plane in chroma.chunks_exact_mut(width * height / 4) {
            copy_rows(plane, width / 2, &self.chroma, columns / 2, (x / 2, y / 2), mirrored);
        }
        let bits = u16::try_from(number).context("a barcode has 16 bits")?;
        for bit in 0..BITS {
            self.paint_block(bit, if (bits >> bit) & 1 == 1 { 235 } else { 16 });
        }
        Ok(&self.frame)
    }

    /// Writes frames to a program that reads them.
    pub(crate) async fn feed(&mut self, numbers: Range<u32>, mut to: ChildStdin) -> Result<()> {
        for number in numbers {
            // A program that has given up tells why by itself.
            if to.write_all(self.paint(number)?).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn paint_block(&mut self, index: usize, value: u8) {
        let (width, height) = self.size;
        let side = width / BLOCKS;
        // Turning clockwise brings the lower left corner of what is stored to the upper left.
        let (left, top) = if self.turned {
            (0, height - (index + 1) * side)
        } else {
            (index * side, 0)
        };
        for row in self.frame.chunks_exact_mut(width).skip(top).take(side) {
            row[left..left + side].fill(value);
        }
    }
}

/// Rings and some noise, so that an encoder has something to do.
fn texture(x: usize, y: usize) -> usize {
    let mixed = (x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
    let ring = (x * x / 640 + y * y / 480) % 192;
    60 + ring.min(192 - ring) + (mixed >> 20) % 8
}

fn byte(value: usize) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// To and fro between 0 and `PAN_PX`.
fn pan(distance: usize) -> usize {
    let at = distance % (2 * PAN_PX);
    at.min(2 * PAN_PX - at)
}

fn copy_rows(to: &mut [u8], width: usize, from: &[u8], columns: usize, (x, y): (usize, usize), mirrored: bool) {
    let height = to.len() / width;
    for (index, row) in to.chunks_exact_mut(width).enumerate() {
        let line = y + if mirrored { height - 1 - index } else { index };
        row.copy_from_slice(&from[line * columns + x..][..width]);
    }
}

/// The frames of a video stream in the order in which they are shown.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The number that each carries.
    pub numbers: Vec<u16>,
    /// When each is shown, in units of the time base.
    pub pts: Vec<i64>,
    /// Seconds of a unit, as a fraction.
    pub time_base: (u32, u32),
}

impl Frames {
    /// The units from each frame to the next.
    pub fn steps(&self) -> Vec<i64> {
        self.pts.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// When the frame at a place of this list is shown.
    pub fn seconds_at(&self, index: usize) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a time stamp of a test is far below 2^52")]
        let pts = *self.pts.get(index)? as f64;
        let (numerator, denominator) = self.time_base;
        Some(pts * f64::from(numerator) / f64::from(denominator))
    }

    /// When the frame with a number is shown first, if it is.
    pub fn time_seconds(&self, number: u32) -> Option<f64> {
        let index = self.numbers.iter().position(|&shown| u32::from(shown) == number)?;
        self.seconds_at(index)
    }

    /// When beeps are to be heard: one with each frame that has one, if it is shown.
    pub fn beeps_seconds(&self) -> Vec<f64> {
        let numbers = (0..=u32::from(u16::MAX)).filter(|&number| beeps_at(number));
        numbers.filter_map(|number| self.time_seconds(number)).collect()
    }
}

/// A packet of a stream as the container has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Presentation time, in units of the stream's time base; the time of decoding where there is no other (AVI).
    pub pts: i64,
    /// How long it lasts, where the container tells.
    pub duration: Option<i64>,
    /// Whether decoding can begin here.
    pub is_key: bool,
}

impl Studio {
    /// Decodes a video stream (`video` counts from 0) and reads every frame's number and time. Frames are neither
    /// dropped nor repeated. A frame without a readable number is an error, and so is a complaint of the decoder.
    pub async fn frames(&self, input: impl AsRef<OsStr>, video: usize) -> Result<Frames> {
        self.frames_through(input.as_ref(), video, "null").await
    }

    /// The same behind filters.
    pub async fn frames_through(&self, input: impl AsRef<OsStr>, video: usize, filters: &str) -> Result<Frames> {
        let (width, height) = READING_SIZE_PX;
        let blocks = BITS * READING_BLOCK_PX;
        let mut arguments = words("-hide_banner -loglevel level+info -nostats -copyts -err_detect explode");
        arguments.extend(input_words(input.as_ref()));
        // A portrait is read from the turned picture.
        arguments.extend(words(&format!(
            "-map 0:v:{video} -fps_mode passthrough \
             -vf {filters},scale='if(gt(iw,ih),{width},{height})':'if(gt(iw,ih),{height},{width})':flags=area,\
             format=gray,crop={blocks}:{READING_BLOCK_PX}:0:0,showinfo=checksum=0 -f rawvideo -"
        )));
        let output = self.ffmpeg(&arguments).await?;
        let log = String::from_utf8_lossy(&output.stderr);
        let is_complaint = |line: &&str| line.contains("[error]") || line.contains("[fatal]");
        let complaints: Vec<&str> = log.lines().filter(is_complaint).collect();
        ensure!(complaints.is_empty(), "{}: {complaints:#?}", input.as_ref().display());
        let pictures = output.stdout.chunks_exact(blocks * READING_BLOCK_PX);
        let numbers = pictures
            .enumerate()
            .map(|(index, picture)| read_number(picture).with_context(|| format!("frame {index}")))
            .collect::<Result<Vec<u16>>>()
            .with_context(|| input.as_ref().display().to_string())?;
        let (pts, time_base) = read_times(&log)?;
        ensure!(
            pts.len() == numbers.len(),
            "{} time stamps of {} frames",
            pts.len(),
            numbers.len()
        );
        Ok(Frames {
            numbers,
            pts,
            time_base,
        })
    }

    /// How like two videos are, frame by frame in the order shown and whatever their time stamps: the peak
    /// signal-to-noise ratio of all planes in dB, infinite for equal frames. The first one goes through filters, and then
    /// both must have the same size. When one has more frames, these are not compared.
    pub async fn psnr_per_frame(&self, a: impl AsRef<OsStr>, filters: &str, b: impl AsRef<OsStr>) -> Result<Vec<f64>> {
        let counted = "settb=1/1000,setpts=N";
        let mut arguments = words("-loglevel error -copyts -i");
        arguments.extend([a.as_ref().to_owned(), OsString::from("-i"), b.as_ref().to_owned()]);
        arguments.extend(words(&format!(
            "-lavfi [0:v:0]{filters},{counted}[a];[1:v:0]{counted}[b];\
             [a][b]psnr=stats_file=-:eof_action=endall:shortest=1 -fps_mode passthrough -f null -"
        )));
        let output = self.ffmpeg(&arguments).await?;
        let lines = String::from_utf8(output.stdout)?;
        let values = lines
            .lines()
            .filter_map(|line| line.split_once("psnr_avg:")?.1.split_whitespace().next());
        values.map(|value| Ok(value.parse()?)).collect()
    }

    /// The packets of a stream, named as ffmpeg does (`a:0`), in the order of the container, and the time base. Nothing
    /// is decoded, but edit lists are applied.
    pub async fn packets(&self, input: impl AsRef<OsStr>, stream: &str) -> Result<(Vec<Packet>, (u32, u32))> {
        let entries = "packet=pts,dts,duration,flags:stream=time_base";
        let mut arguments = words(&format!(
            "-v error -select_streams {stream} -show_entries {entries} -of json"
        ));
        arguments.extend(input_words(input.as_ref()));
        let answer: Value = serde_json::from_slice(&self.ffprobe(&arguments).await?.stdout)?;
        let base = answer["streams"][0]["time_base"].as_str().context("no time base")?;
        let packets = answer["packets"]
            .as_array()
            .context("no packets")?
            .iter()
            .map(|packet| {
                let time = packet["pts"].as_i64().or_else(|| packet["dts"].as_i64());
                Ok(Packet {
                    pts: time.context("a packet without a time stamp")?,
                    duration: packet["duration"].as_i64(),
                    is_key: packet["flags"].as_str().is_some_and(|flags| flags.starts_with('K')),
                })
            });
        Ok((packets.collect::<Result<_>>()?, fraction(base)?))
    }
}

/// Reads the number out of the row of blocks.
fn read_number(picture: &[u8]) -> Result<u16> {
    let mut number = 0;
    let inner = BLOCK_EDGE_PX..READING_BLOCK_PX - BLOCK_EDGE_PX;
    for bit in 0..BITS {
        let left = bit * READING_BLOCK_PX;
        let rows = picture.chunks_exact(BITS * READING_BLOCK_PX);
        let rows = rows.skip(inner.start).take(inner.len());
        let pixels = rows.flat_map(|row| &row[left + inner.start..left + inner.end]);
        let sum: u32 = pixels.map(|&pixel| u32::from(pixel)).sum();
        let luma = sum / u32::try_from(inner.len() * inner.len())?;
        ensure!(
            !UNREADABLE.contains(&luma),
            "block {bit} has luma {luma}, which is neither black nor white"
        );
        if luma >= UNREADABLE.end {
            number |= 1 << bit;
        }
    }
    Ok(number)
}

/// Reads what the filter `showinfo` wrote.
fn read_times(log: &str) -> Result<(Vec<i64>, (u32, u32))> {
    let lines = log.lines().filter(|line| line.contains("Parsed_showinfo"));
    let mut pts = Vec::new();
    let mut time_base = None;
    for line in lines {
        if let Some((_, rest)) = line.split_once("config in time_base: ") {
            let text = rest.split(',').next().unwrap_or_default();
            time_base = Some(fraction(text)?);
        } else if let Some((_, rest)) = line.split_once(" pts:") {
            let text = rest.split_whitespace().next().unwrap_or_default();
            pts.push(
                text.parse()
                    .with_context(|| format!("a frame with the time stamp {text}"))?,
            );
        }
    }
    Ok((pts, time_base.context("no time base")?))
}

fn fraction(text: &str) -> Result<(u32, u32)> {
    let (numerator, denominator) = text.split_once('/').with_context(|| format!("{text} is no fraction"))?;
    Ok((numerator.trim().parse()?, denominator.trim().parse()?))
}
