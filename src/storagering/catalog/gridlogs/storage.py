"""Kinds of logs about what there is and where: DBS and PhEDEx."""

from __future__ import annotations

from storagering.catalog.gridlogs.kinds import Kind, field
from storagering.catalog.gridlogs.values import FLAG, INT, TEXT, TIME

DBS = Kind(
    "dbs",
    "datasets, blocks and files, as DBS knows them",
    "dmwm/CMSSpark, schemas.py: schema_datasets, schema_blocks, schema_files; DBS 3 API",
    (
        field("dataset", TEXT, "dataset", "d_dataset", "dataset_name"),
        field("data_tier", TEXT, "data_tier_name"),
        field("block", TEXT, "block_name", "b_block_name"),
        field("lfn", TEXT, "logical_file_name", "f_logical_file_name"),
        field("nbytes", INT, "file_size", "f_file_size", "block_size", "b_block_size", "size"),
        field("files", INT, "file_count", "b_file_count", "num_file"),
        field("events", INT, "event_count", "f_event_count", "num_event", "evts"),
        field("access_type", TEXT, "dataset_access_type"),
        field("valid", FLAG, "is_dataset_valid", "d_is_dataset_valid", "is_file_valid", "f_is_file_valid"),
        field("site", TEXT, "origin_site_name", "b_origin_site_name"),
        field("created", TIME, "creation_date", "d_creation_date", "b_creation_date", "f_creation_date", "date"),
    ),
    needs=(("dataset", "block", "lfn"), ("created",)),
    orders=(
        "d_dataset_id d_dataset d_is_dataset_valid d_primary_ds_id d_processed_ds_id d_data_tier_id "
        "d_dataset_access_type_id d_acquisition_era_id d_processing_era_id d_physics_group_id d_xtcrosssection "
        "d_prep_id d_creation_date d_create_by d_last_modification_date d_last_modified_by",
        "b_block_id b_block_name b_dataset_id b_open_for_writing b_origin_site_name b_block_size b_file_count "
        "b_creation_date b_create_by b_last_modification_date b_last_modified_by",
        "f_file_id f_logical_file_name f_is_file_valid f_dataset_id f_block_id f_file_type_id f_check_sum "
        "f_event_count f_file_size f_branch_hash_id f_adler32 f_md5 f_auto_cross_section f_creation_date "
        "f_create_by f_last_modification_date f_last_modified_by",
    ),
)

PHEDEX = Kind(
    "phedex",
    "replicas of blocks at sites, as PhEDEx knew them at a time",
    "dmwm/CMSSpark, schemas.py: schema_phedex, schema_phedex_summary",
    (
        field("time", TIME, "now_sec", "date"),
        field("dataset", TEXT, "dataset_name", "dataset"),
        field("data_tier", TEXT, "data_tier"),
        field("block", TEXT, "block_name"),
        field("site", TEXT, "node_name", "site"),
        field("node", TEXT, "node_name", "site"),
        field("files", INT, "br_node_files"),
        field("nbytes", INT, "br_node_bytes", "size"),
        field("block_bytes", INT, "block_bytes"),
        field("is_active", FLAG, "br_is_active"),
        field("is_custodial", FLAG, "br_is_custodial"),
        field("created", TIME, "replica_time_create", "replica_date"),
    ),
    needs=(("time",), ("dataset", "block"), ("site",), ("nbytes",)),
    orders=(
        "now_sec dataset_name dataset_id dataset_is_open dataset_time_create dataset_time_update block_name "
        "block_id block_files block_bytes block_is_open block_time_create block_time_update node_name node_id "
        "br_is_active br_src_files br_src_bytes br_dest_files br_dest_bytes br_node_files br_node_bytes "
        "br_xfer_files br_xfer_bytes br_is_custodial br_user_group_id replica_time_create "
        "replica_time_updater",
        "date site dataset size replica_date",
    ),
)
