//! Policies through the pipeline.
