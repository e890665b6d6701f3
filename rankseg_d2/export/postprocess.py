"""Pictures -> input, outputs -> results, of the exported model beside this file, with NumPy alone.

    session = onnxruntime.InferenceSession("model.onnx")
    model = Model(session.get_modelmeta().custom_metadata_map["rankseg"])
    images, sizes = model.prepare([pixels])       # RGB (H, W, 3) uint8 each, of clips T of them
    outputs = session.run(model.outputs, {"images": images})
    result = model.results(outputs, 0, sizes[0])  # of the first picture
"""

import json

import numpy as np


class Model:
    def __init__(self, description):
        self.said = said = json.loads(description)
        self.names, self.frames = [row["name"] for row in said["classes"]], said["frames"]
        self.options, self.things = said["results"], set(said["results"]["thing_ids"])
        self.outputs = ["pixel_logits"] if said["pixels"] else ["class_logits", "mask_logits"]
        self.outputs += ["category_scores", "categories"] if said["topk"] else []
        self.outputs += ["valid"] if said["threshold"] else []

    def prepare(self, samples):
        """The input (B, 3, H, W) or (B, T, 3, H, W), and the sizes that `results` takes."""
        clips = [list(sample) if self.frames else [sample] for sample in samples]
        if any(len(clip) != (self.frames or 1) for clip in clips):
            raise ValueError(f"the model takes clips of {self.frames} frames")
        came = [tuple(clip[0].shape[:2]) for clip in clips]
        sizes, step = [self.resized(*size) for size in came], self.said["multiple"]
        padded = self.said["size"] or [-(-max(sides) // step) * step for sides in zip(*sizes)]
        if (np.max(sizes, 0) > padded).any():
            raise ValueError(f"the model takes pictures of at most {padded} pixels, not {sizes}")
        images = np.zeros((len(clips), self.frames or 1, 3, *padded), np.float32)
        for place, clip, (height, width) in zip(images, clips, sizes):
            place[..., :height, :width] = [self.normalized(one, (height, width)) for one in clip]
        return images if self.frames else images[:, 0], [(padded, *two) for two in zip(sizes, came)]

    def resized(self, height, width):
        """The size at which the model sees a picture."""
        scale = (self.said["min_size"] or min(height, width)) / min(height, width)
        if self.said["min_size"] and scale * max(height, width) > self.said["max_size"]:
            scale = self.said["max_size"] / max(height, width)
        return tuple(max(1, int(side * scale + 0.5)) for side in (height, width))

    def normalized(self, pixels, size):
        """(H, W, 3) uint8 -> (3, h, w), resized as Pillow does: along x first, in whole numbers."""
        pixels = np.moveaxis(pixels[..., ::-1] if self.said["channels"] == "BGR" else pixels, 2, 0)
        if pixels.shape[2] != size[1]:
            pixels = np.floor(pixels @ weights(pixels.shape[2], size[1], True).T + 0.5)
        if pixels.shape[1] != size[0]:
            pixels = np.floor(weights(pixels.shape[1], size[0], True) @ pixels + 0.5)
        mean, std = (np.reshape(self.said[key], (3, 1, 1)) for key in ("pixel_mean", "pixel_std"))
        return (pixels - mean) / std

    def results(self, outputs, i, sizes):
        """Results by name, `categories` best first; `sizes` are those of picture i."""
        found = {name: value[i] for name, value in zip(self.outputs, outputs)}
        logits = found[self.outputs[0]]  # (K, h, w) of pixels, (Q, K+1) of masks
        count = len(logits) if self.said["pixels"] else logits.shape[1] - 1
        columns = np.flatnonzero(found.get("valid", np.ones(count, bool)))
        ids, result = found.get("categories", np.arange(count))[columns], {}
        if "categories" in found:
            fit = self.said["calibration"] or {"temperature": 1, "bias": [0]}
            chances = sigmoid(found["category_scores"] / fit["temperature"] + (fit["bias"] or [0]))
            result["categories"] = [(self.names[one], float(chances[one])) for one in ids]
        if self.said["pixels"]:
            return result | {"semantic": ids[self.pixel_maps(logits[columns], *sizes).argmax(0)]}
        powers = np.exp(logits[:, [*columns, count]] - logits.max(1, keepdims=True))
        masks = found["mask_logits"] if self.frames else found["mask_logits"][:, None]
        return result | self.of_masks(powers / powers.sum(1, keepdims=True), ids, masks, *sizes)

    def pixel_maps(self, maps, padded, image, came):
        """Logits (K, h, w) at the picture's size."""
        stride, stretch = self.said["pixels"]["stride"], self.said["pixels"]["stretch"]
        if stretch:  # no cell of the padding, and all others for the picture
            maps = maps[:, : -(-image[0] // stride), : -(-image[1] // stride)]
        rows, columns = (weights(a, b) @ weights(cells, a if stretch else cells * stride)[:a]
                         for cells, a, b in zip(maps.shape[1:], image, came))  # fmt: skip
        return rows @ maps @ columns.T

    def of_masks(self, classes, ids, masks, padded, image, came):
        """Results of class probabilities (Q, K+1) and mask logits (Q, T, h, w)."""
        rows, columns = (weights(*t)[:a] for *t, a in zip(masks.shape[2:], padded, image))
        down, right = (weights(*t) for t in zip(image, came))
        logits = rows @ masks @ columns.T  # of the picture as the model sees it
        first = self.options["resize_first"]  # else there are semantic results only
        maps = down @ (logits if first else sigmoid(logits)) @ right.T  # (Q, T, H, W)
        logits, maps = (maps, sigmoid(maps)) if first else (None, maps)
        frames, result = slice(None) if self.frames else 0, {}
        if self.options["semantic"]:
            best = np.tensordot(classes[:, :-1], maps, (0, 0)).argmax(0)  # (T, H, W)
            result["semantic"] = ids[best][frames]
        if self.options["panoptic"]:
            numbers, segments = self.segments(classes, ids, maps)
            result["panoptic"] = numbers[frames], segments
        if self.options["instance"]:
            result["instances"] = self.objects(classes[:, :-1], ids, logits, maps, frames)
        return result

    def segments(self, classes, ids, maps):
        """Segment ids (T, H, W), 0 for none, and the segments."""
        columns, scores, options = classes.argmax(1), classes.max(1), self.options
        keep = (columns < len(ids)) & (scores > options["object_mask_threshold"])
        numbers, segments = np.zeros(maps.shape[1:], np.int32), []
        winner = (maps * np.where(keep, scores, -1)[:, None, None, None]).argmax(0)
        for query in np.flatnonzero(keep):
            inside, won, category = maps[query] >= 0.5, winner == query, int(ids[columns[query]])
            left = won & inside if options["covered_only"] else won
            own, area = int(inside.sum()), int(left.sum())
            if not own or not area or won.sum() / own < options["overlap_threshold"]:
                continue
            stuff = (s for s in segments if s["category_id"] == category and not s["isthing"])
            new = {"id": len(segments) + 1, "category_id": category, "name": self.names[category],
                   "isthing": category in self.things, "area": 0, "score": 0.0}  # fmt: skip
            one = next(stuff, new)  # all stuff of a category is one segment
            segments += [new] if one is new else []
            numbers[left], one["area"] = one["id"], one["area"] + area
            score = float(scores[query] * maps[query][inside].mean())
            one["score"] += area / one["area"] * (score - one["score"])  # the mean of its pixels
        return numbers, segments

    def objects(self, classes, ids, logits, maps, frames):
        """The objects, best first, with masks of bool."""
        count = self.options[f"detections_per_{'video' if self.frames else 'image'}"]
        least, found = self.options["score_threshold"], []
        for pair in np.argsort(-classes.ravel(), kind="stable")[:count]:
            query, category = pair // len(ids), int(ids[pair % len(ids)])
            score, mask = float(classes.flat[pair]), logits[query] > 0
            if score < least or (self.options["panoptic"] and category not in self.things):
                continue
            if not self.frames:
                score *= float(maps[query][mask].sum() / (mask.sum() + 1e-6))
            if self.frames or (mask.any() and score >= least):
                found.append({"category_id": category, "name": self.names[category],
                              "score": score, "mask": mask[frames]})  # fmt: skip
        return sorted(found, key=lambda one: -one["score"])


def weights(length, new, antialias=False):
    """The shares (new, length) of old pixels in new ones, bilinear."""
    spread = max(length / new, 1) if antialias else 1
    centers = (np.arange(new)[:, None] + 0.5) * length / new
    near = np.maximum(0, 1 - abs(np.arange(length) + 0.5 - centers) / spread)
    return (near / near.sum(1, keepdims=True)).astype(np.float32)


def sigmoid(x):
    return 0.5 + 0.5 * np.tanh(0.5 * x)
