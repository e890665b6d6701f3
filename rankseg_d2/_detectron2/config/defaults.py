"""Every key of detectron2 and its default, so that yaml files written for it load unchanged."""

# Sections of detectors that this engine does not build: their yaml files still load.
_DETECTORS = {
    "LOAD_PROPOSALS": False,
    "KEYPOINT_ON": False,
    "FPN": {"IN_FEATURES": [], "OUT_CHANNELS": 256, "NORM": "", "FUSE_TYPE": "sum"},
    "PROPOSAL_GENERATOR": {"NAME": "RPN", "MIN_SIZE": 0},
    "ANCHOR_GENERATOR": {
        "NAME": "DefaultAnchorGenerator", "SIZES": [[32, 64, 128, 256, 512]],
        "ASPECT_RATIOS": [[0.5, 1.0, 2.0]], "ANGLES": [[-90, 0, 90]], "OFFSET": 0.0,
    },
    "RPN": {
        "HEAD_NAME": "StandardRPNHead", "IN_FEATURES": ["res4"], "BOUNDARY_THRESH": -1,
        "IOU_THRESHOLDS": [0.3, 0.7], "IOU_LABELS": [0, -1, 1], "BATCH_SIZE_PER_IMAGE": 256,
        "POSITIVE_FRACTION": 0.5, "BBOX_REG_LOSS_TYPE": "smooth_l1", "BBOX_REG_LOSS_WEIGHT": 1.0,
        "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0), "SMOOTH_L1_BETA": 0.0, "LOSS_WEIGHT": 1.0,
        "PRE_NMS_TOPK_TRAIN": 12000, "PRE_NMS_TOPK_TEST": 6000, "POST_NMS_TOPK_TRAIN": 2000,
        "POST_NMS_TOPK_TEST": 1000, "NMS_THRESH": 0.7, "CONV_DIMS": [-1],
    },
    "ROI_HEADS": {
        "NAME": "Res5ROIHeads", "NUM_CLASSES": 80, "IN_FEATURES": ["res4"],
        "IOU_THRESHOLDS": [0.5], "IOU_LABELS": [0, 1], "BATCH_SIZE_PER_IMAGE": 512,
        "POSITIVE_FRACTION": 0.25, "SCORE_THRESH_TEST": 0.05, "NMS_THRESH_TEST": 0.5,
        "PROPOSAL_APPEND_GT": True,
    },
    "ROI_BOX_HEAD": {
        "NAME": "", "BBOX_REG_LOSS_TYPE": "smooth_l1", "BBOX_REG_LOSS_WEIGHT": 1.0,
        "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0), "SMOOTH_L1_BETA": 0.0,
        "POOLER_RESOLUTION": 14, "POOLER_SAMPLING_RATIO": 0, "POOLER_TYPE": "ROIAlignV2",
        "NUM_FC": 0, "FC_DIM": 1024, "NUM_CONV": 0, "CONV_DIM": 256, "NORM": "",
        "CLS_AGNOSTIC_BBOX_REG": False, "TRAIN_ON_PRED_BOXES": False, "USE_SIGMOID_CE": False,
        "USE_FED_LOSS": False, "FED_LOSS_FREQ_WEIGHT_POWER": 0.5, "FED_LOSS_NUM_CLASSES": 50,
    },
    "ROI_BOX_CASCADE_HEAD": {
        "BBOX_REG_WEIGHTS": (
            (10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0),
        ),
        "IOUS": (0.5, 0.6, 0.7),
    },
    "ROI_MASK_HEAD": {
        "NAME": "MaskRCNNConvUpsampleHead", "POOLER_RESOLUTION": 14, "POOLER_SAMPLING_RATIO": 0,
        "POOLER_TYPE": "ROIAlignV2", "NUM_CONV": 0, "CONV_DIM": 256, "NORM": "",
        "CLS_AGNOSTIC_MASK": False,
    },
    "ROI_KEYPOINT_HEAD": {
        "NAME": "KRCNNConvDeconvUpsampleHead", "POOLER_RESOLUTION": 14,
        "POOLER_SAMPLING_RATIO": 0, "POOLER_TYPE": "ROIAlignV2", "CONV_DIMS": (512,) * 8,
        "NUM_KEYPOINTS": 17, "MIN_KEYPOINTS_PER_IMAGE": 1, "LOSS_WEIGHT": 1.0,
        "NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS": True,
    },
    "PANOPTIC_FPN": {
        "INSTANCE_LOSS_WEIGHT": 1.0,
        "COMBINE": {
            "ENABLED": True, "OVERLAP_THRESH": 0.5, "STUFF_AREA_LIMIT": 4096,
            "INSTANCES_CONFIDENCE_THRESH": 0.5,
        },
    },
    "RETINANET": {
        "NUM_CLASSES": 80, "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"], "NUM_CONVS": 4,
        "IOU_THRESHOLDS": [0.4, 0.5], "IOU_LABELS": [0, -1, 1], "PRIOR_PROB": 0.01,
        "SCORE_THRESH_TEST": 0.05, "TOPK_CANDIDATES_TEST": 1000, "NMS_THRESH_TEST": 0.5,
        "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0), "BBOX_REG_LOSS_TYPE": "smooth_l1",
        "SMOOTH_L1_LOSS_BETA": 0.1, "FOCAL_LOSS_GAMMA": 2.0, "FOCAL_LOSS_ALPHA": 0.25, "NORM": "",
    },
}

DEFAULTS = {
    "VERSION": 2,
    "MODEL": _DETECTORS | {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "DEVICE": "cuda",
        "WEIGHTS": "",  # path or address of a weight file
        "MASK_ON": False,
        "PIXEL_MEAN": [103.53, 116.28, 123.675],  # in the channel order of INPUT.FORMAT
        "PIXEL_STD": [1.0, 1.0, 1.0],
        "BACKBONE": {
            "NAME": "build_resnet_backbone",
            "FREEZE_AT": 2,  # of ResNets only; 0: nothing, 1: the stem, 2: the stem and res2, ...
        },
        "RESNETS": {
            "DEPTH": 50, "OUT_FEATURES": ["res4"], "NORM": "FrozenBN", "STEM_OUT_CHANNELS": 64,
            "RES2_OUT_CHANNELS": 256,  # 64 for depths 18 and 34
            "NUM_GROUPS": 1, "WIDTH_PER_GROUP": 64,
            "STRIDE_IN_1X1": True,  # False for torchvision's weights
            "RES5_DILATION": 1, "DEFORM_ON_PER_STAGE": [False, False, False, False],
            "DEFORM_MODULATED": False, "DEFORM_NUM_GROUPS": 1,
        },
        "SEM_SEG_HEAD": {
            "NAME": "SemSegFPNHead", "IN_FEATURES": ["p2", "p3", "p4", "p5"], "NUM_CLASSES": 54,
            "IGNORE_VALUE": 255, "CONVS_DIM": 128, "COMMON_STRIDE": 4, "NORM": "GN",
            "LOSS_WEIGHT": 1.0,
        },
    },
    "INPUT": {
        "FORMAT": "BGR",
        "MASK_FORMAT": "polygon",  # or "bitmask"
        "MIN_SIZE_TRAIN": (800,), "MIN_SIZE_TRAIN_SAMPLING": "choice", "MAX_SIZE_TRAIN": 1333,
        "MIN_SIZE_TEST": 800, "MAX_SIZE_TEST": 1333,
        "RANDOM_FLIP": "horizontal",  # or "vertical", "none"
        "CROP": {"ENABLED": False, "TYPE": "relative_range", "SIZE": [0.9, 0.9]},
    },
    "DATASETS": {
        "TRAIN": (), "TEST": (),
        "PROPOSAL_FILES_TRAIN": (), "PRECOMPUTED_PROPOSAL_TOPK_TRAIN": 2000,
        "PROPOSAL_FILES_TEST": (), "PRECOMPUTED_PROPOSAL_TOPK_TEST": 1000,
    },
    "DATALOADER": {
        "NUM_WORKERS": 4, "ASPECT_RATIO_GROUPING": True, "FILTER_EMPTY_ANNOTATIONS": True,
        "SAMPLER_TRAIN": "TrainingSampler", "REPEAT_THRESHOLD": 0.0, "REPEAT_SQRT": True,
    },
    "SOLVER": {
        "IMS_PER_BATCH": 16,  # over all processes
        "REFERENCE_WORLD_SIZE": 0,  # not 0: rescale batch, rate and schedule to the real size
        "MAX_ITER": 40000, "CHECKPOINT_PERIOD": 5000,
        "BASE_LR": 0.001, "MOMENTUM": 0.9, "NESTEROV": False,
        "WEIGHT_DECAY": 0.0001, "WEIGHT_DECAY_NORM": 0.0,
        "BIAS_LR_FACTOR": 1.0, "WEIGHT_DECAY_BIAS": None,  # None: as the other weights
        "LR_SCHEDULER_NAME": "WarmupMultiStepLR", "STEPS": (30000,), "GAMMA": 0.1,
        "BASE_LR_END": 0.0, "NUM_DECAYS": 3,
        "WARMUP_METHOD": "linear", "WARMUP_FACTOR": 0.001, "WARMUP_ITERS": 1000,
        "RESCALE_INTERVAL": False,
        "CLIP_GRADIENTS": {
            "ENABLED": False, "CLIP_TYPE": "value", "CLIP_VALUE": 1.0, "NORM_TYPE": 2.0,
        },
        "AMP": {"ENABLED": False},
    },
    "TEST": {
        "EVAL_PERIOD": 0,  # in iterations; 0: only at the end
        "EXPECTED_RESULTS": [],  # [data set, task, metric, value, tolerance]
        "DETECTIONS_PER_IMAGE": 100, "KEYPOINT_OKS_SIGMAS": [],
        "AUG": {
            "ENABLED": False, "MIN_SIZES": (400, 500, 600, 700, 800, 900, 1000, 1100, 1200),
            "MAX_SIZE": 4000, "FLIP": True,
        },
        "PRECISE_BN": {"ENABLED": False, "NUM_ITER": 200},
    },
    "OUTPUT_DIR": "./output",
    "SEED": -1,  # negative: a random one
    "CUDNN_BENCHMARK": False,
    "FLOAT32_PRECISION": "",  # for torch.set_float32_matmul_precision
    "VIS_PERIOD": 0,
    "GLOBAL": {"HACK": 1.0},  # for quick experiments; nothing reads it
}
