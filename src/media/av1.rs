//! AV1 to samples, by the decoder `rav1d`, whose only interface is that of C.
//!
//! Bad input may make it end the whole process, so that it belongs into one that does nothing else.
#![allow(unsafe_code, reason = "the decoder has no other interface")]

use std::ffi::c_void;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice;

use rav1d::Dav1dResult;
use rav1d::include::dav1d::data::Dav1dData;
use rav1d::include::dav1d::dav1d::{Dav1dContext, Dav1dSettings};
use rav1d::include::dav1d::headers::{
    DAV1D_PIXEL_LAYOUT_I400, DAV1D_PIXEL_LAYOUT_I420, DAV1D_PIXEL_LAYOUT_I422, DAV1D_PIXEL_LAYOUT_I444,
};
use rav1d::include::dav1d::picture::Dav1dPicture;
use rav1d::src::lib::{
    dav1d_close, dav1d_data_create, dav1d_data_unref, dav1d_default_settings, dav1d_get_picture, dav1d_open,
    dav1d_picture_unref, dav1d_send_data,
};

use super::decode::{DecodeError, HEIGHT_MAX, WIDTH_MAX, assemble};
use super::frame::{Frame, Plane, Samples};
use super::headers::Chroma;
use crate::proto::av1::{Malformed, without_start_codes};

/// Decodes units one after the other, on the thread that calls.
pub(super) struct Decoder(Option<Dav1dContext>);

// SAFETY: the decoder may be called from any thread, one at a time (dav1d's documentation); it has no threads of its own.
unsafe impl Send for Decoder {}

impl Decoder {
    pub(super) fn new() -> Result<Self, DecodeError> {
        let mut settings = MaybeUninit::<Dav1dSettings>::uninit();
        // SAFETY: the call writes all of them.
        let mut settings = unsafe {
            dav1d_default_settings(NonNull::from(&mut settings).cast());
            settings.assume_init()
        };
        (settings.n_threads, settings.max_frame_delay, settings.all_layers) = (1, 1, 0);
        settings.frame_size_limit = WIDTH_MAX * HEIGHT_MAX;
        // SAFETY: two optional pointers, which are null then: nothing is logged.
        unsafe { ptr::write_bytes(&raw mut settings.logger, 0, 1) };
        let mut context = None;
        // SAFETY: both outlive the call.
        let opened = unsafe { dav1d_open(Some(NonNull::from(&mut context)), Some(NonNull::from(&mut settings))) };
        if opened == OK { Ok(Self(context)) } else { Err(DecodeError::Unsupported("no decoder of AV1")) }
    }

    /// The last picture that is shown by then; `None` where the unit only brings one for others.
    pub(super) fn decode(&mut self, unit: &[u8]) -> Result<Option<Frame>, DecodeError> {
        let unit = without_start_codes(unit).map_err(|Malformed| DecodeError::Damaged("no OBUs"))?;
        let mut data = Input::copy(&unit)?;
        let mut shown = None;
        while data.0.sz > 0 {
            // SAFETY: the context is open, and the data outlive the call, which leaves in them what is not taken.
            let sent = unsafe { dav1d_send_data(self.0, Some(NonNull::from(&mut data.0))) };
            let mut is_stuck = sent == AGAIN;
            while let Some(picture) = self.picture()? {
                shown = Some(picture.frame()?);
                is_stuck = false;
            }
            if is_stuck || !matches!(sent, OK | AGAIN) {
                return Err(DecodeError::Damaged("no picture of AV1"));
            }
        }
        Ok(shown)
    }

    fn picture(&mut self) -> Result<Option<Output>, DecodeError> {
        let mut picture = Output(Dav1dPicture::default());
        // SAFETY: the context is open, and the picture outlives the call.
        match unsafe { dav1d_get_picture(self.0, Some(NonNull::from(&mut picture.0))) } {
            OK => Ok(Some(picture)),
            AGAIN => Ok(None),
            _ => Err(DecodeError::Damaged("no picture of AV1")),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: it was opened, and is not used any more.
        unsafe { dav1d_close(Some(NonNull::from(&mut self.0))) };
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

/// What is to be decoded, in the decoder's own memory.
struct Input(Dav1dData);

impl Input {
    fn copy(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut data = Self(Dav1dData::default());
        if !bytes.is_empty() {
            // SAFETY: the data outlive the call.
            let memory = unsafe { dav1d_data_create(Some(NonNull::from(&mut data.0)), bytes.len()) };
            let memory = NonNull::new(memory).ok_or(DecodeError::TooLarge)?;
            // SAFETY: there are so many bytes, and nobody else's.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), memory.as_ptr(), bytes.len()) };
        }
        Ok(data)
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        // SAFETY: empty, or made by the decoder.
        unsafe { dav1d_data_unref(Some(NonNull::from(&mut self.0))) };
    }
}

/// A picture in the decoder's memory.
struct Output(Dav1dPicture);

impl Output {
    fn frame(&self) -> Result<Frame, DecodeError> {
        let Dav1dPicture { data: [luma, blue, red], stride: [luma_stride, stride], ref p, .. } = self.0;
        let chroma = match p.layout {
            DAV1D_PIXEL_LAYOUT_I400 | DAV1D_PIXEL_LAYOUT_I420 => Chroma::Yuv420,
            DAV1D_PIXEL_LAYOUT_I422 => Chroma::Yuv422,
            DAV1D_PIXEL_LAYOUT_I444 => Chroma::Yuv444,
            _ => return Err(DecodeError::Unsupported("AV1 of an unknown layout")),
        };
        let size = |side| usize::try_from(side).map_err(|_| DecodeError::Damaged("no size"));
        let (width, height, depth) = (size(p.w)?, size(p.h)?, p.bpc as u8);
        let (shift_x, shift_y) = chroma.shifts();
        let halves = (width.div_ceil(1 << shift_x), height.div_ceil(1 << shift_y));
        let side = |data| match p.layout {
            DAV1D_PIXEL_LAYOUT_I400 => grey(halves, depth),
            _ => self.plane(data, stride, halves),
        };
        assemble(chroma, depth, [self.plane(luma, luma_stride, (width, height)), side(blue), side(red)])
    }

    /// Copies the rows of one of its planes.
    fn plane(&self, data: Option<NonNull<c_void>>, stride: isize, (width, height): (usize, usize)) -> Option<Plane> {
        let (data, stride) = (data?.as_ptr().cast_const(), usize::try_from(stride).ok()?);
        let sample_bytes = if self.0.p.bpc > 8 { 2 } else { 1 };
        if width.checked_mul(sample_bytes)? > stride {
            return None;
        }
        let samples = if sample_bytes == 1 {
            Samples::Byte(rows(data.cast::<u8>(), stride, (width, height)))
        } else {
            Samples::Word(rows(data.cast::<u16>(), stride / 2, (width, height)))
        };
        Plane::new(width, height, samples)
    }
}

/// `height` rows of `width` samples, `stride` samples apart, of a plane of a picture that the decoder made.
fn rows<T: Copy>(data: *const T, stride: usize, (width, height): (usize, usize)) -> Vec<T> {
    let mut samples = Vec::with_capacity(width * height);
    for row in 0..height {
        // SAFETY: planes have rows of `stride`, which is no less than `width`, for the whole height; nothing writes to them
        // as long as the picture is held and no other call is made.
        samples.extend_from_slice(unsafe { slice::from_raw_parts(data.add(row * stride), width) });
    }
    samples
}

/// What a monochrome picture has for colour.
fn grey((width, height): (usize, usize), depth: u8) -> Option<Plane> {
    let samples = match depth {
        ..=8 => Samples::Byte(vec![128; width * height]),
        _ => Samples::Word(vec![1 << (depth.min(16) - 1); width * height]),
    };
    Plane::new(width, height, samples)
}

impl Drop for Output {
    fn drop(&mut self) {
        // SAFETY: empty, or filled by the decoder.
        unsafe { dav1d_picture_unref(Some(NonNull::from(&mut self.0))) };
    }
}

const OK: Dav1dResult = Dav1dResult(0);
/// More is needed, or a picture is to be fetched first.
const AGAIN: Dav1dResult = Dav1dResult(-libc::EAGAIN);
