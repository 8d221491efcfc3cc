//! Looks at what one transport stream carries and shows, without ever being in its way.

mod report;

pub use report::{
    Content, Defect, Event, Levels, Metadata, Picture, ProgramMetadata, Reason, Report, Settings, StreamMetadata,
    THUMBNAIL_EVERY, THUMBNAIL_EVERY_MIN, WatchCounts,
};
